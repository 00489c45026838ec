"""No file in the store has an erased key, whatever fails. A series of erasures is one restart."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

import pytest

from segmentql.adapters.jobs import Message
from segmentql.adapters.storage import Storage
from segmentql.csv_files import attempts
from segmentql.csv_files.generation import FileContext, store_and_publish
from segmentql.local import LocalServers
from segmentql.objects.actors import ObjectContext, delete_objects
from segmentql.objects.jobs import DELETE_OBJECTS
from segmentql.objects.service import RETRY_SECONDS
from segmentql.reports import key_erasure
from segmentql.reports.actors import make_report, store_file
from segmentql.reports.file_kind import REPORT_FILES
from segmentql.reports.jobs import MAKE_REPORT
from tests.back_dating import insert_membership
from tests.conftest import Api, RunWorker, Sql, suspended, until
from tests.objects.queries import pass_time
from tests.operations import delete_user, make_segments, set_user_key
from tests.reports.queries import create_report, report

MARCH = datetime(2024, 3, 1, tzinfo=UTC)
KEYS = {1: "alice@example.com", 2: "bob@example.com", 3: "carol@example.com"}
ALICE, BOB, CAROL = KEYS.values()

Files: TypeAlias = Callable[[], Awaitable[dict[str, str]]]


@pytest.fixture
async def files(storage: Storage) -> Files:
    """Return a function that reads all objects that the test stored, by their keys."""
    client = await storage._s3.client()

    async def keys() -> set[str]:
        listed = await client.list_objects_v2(Bucket=storage._bucket)
        return {item["Key"] for item in listed.get("Contents", [])}

    earlier = await keys()

    async def read() -> dict[str, str]:
        contents = {}
        for key in await keys() - earlier:
            found = await client.get_object(Bucket=storage._bucket, Key=key)
            contents[key] = (await found["Body"].read()).decode()
        return contents

    return read


async def users_with(files: Files) -> set[str]:
    """Return the keys of users that any file has."""
    contents = "".join((await files()).values())
    return {key for key in KEYS.values() if key in contents}


@pytest.fixture
async def requested(api: Api, sql: Sql, storage: Storage) -> None:
    """Request a report on three users with keys."""
    await make_segments(api, "a")
    for user_id, key in KEYS.items():
        await insert_membership(sql, user_id, "a", joined_at=MARCH)
        await set_user_key(api, user_id, key)
    assert (await create_report(api, year=2024, month=3, withKeys=True))["errors"] == []


@pytest.fixture
async def ready(requested: None, report_context: FileContext) -> None:
    await make_report(report_context, 1)


async def erase(api: Api, key: str) -> None:
    assert (await delete_user(api, key, eraseKey=True))["errors"] == []


async def row(sql: Sql) -> Any:
    return await sql.fetchrow(
        "SELECT *, status::text AS state, clock_timestamp() AS now FROM reports"
    )


async def pass_delay(sql: Sql, seconds: float = key_erasure.REMAKE_DELAY_SECONDS) -> None:
    """Move the report back, as if this time had passed."""
    await sql.execute(
        """
        UPDATE reports SET next_attempt_at = next_attempt_at - make_interval(secs => $1),
            remade_at = remade_at - make_interval(secs => $1)
        """,
        seconds,
    )


@pytest.mark.slow  # for the restart of the store
async def test_key_erased_during_a_store_outage_is_in_no_file_afterwards(
    servers: LocalServers,
    api: Api,
    sql: Sql,
    object_context: ObjectContext,
    files: Files,
    *,
    ready: None,
) -> None:
    report_context = FileContext(object_context.database, object_context.storage, 30)
    assert await users_with(files) == {ALICE, BOB, CAROL}
    await servers.store.kill()
    try:
        await erase(api, ALICE)
        await delete_objects(object_context)
        await pass_delay(sql)
        await make_report(report_context, 1)  # it fails
        assert ((await row(sql))["state"], (await row(sql))["attempts"]) == ("QUEUED", 1)
    finally:
        await servers.store.start()
    assert ALICE in await users_with(files)
    await pass_time(sql, RETRY_SECONDS)
    await delete_objects(object_context)
    assert await files() == {}
    await pass_delay(sql)
    await make_report(report_context, 1)
    assert (await row(sql))["state"] == "READY"
    assert await users_with(files) == {BOB, CAROL}


async def test_failed_remake_leaves_no_file(
    api: Api,
    sql: Sql,
    report_context: FileContext,
    object_context: ObjectContext,
    files: Files,
    *,
    ready: None,
) -> None:
    settings = report_context.database._settings
    storage = Storage(settings.model_copy(update={"s3_bucket": "no-such-bucket"}))
    await erase(api, ALICE)
    for _ in range(attempts.MAX_STORE_REJECTIONS):
        await pass_delay(sql, 60)
        await make_report(replace(report_context, storage=storage), 1)
    await storage.close()
    assert ((await row(sql))["state"], (await row(sql))["object_key"]) == ("FAILED", None)
    await delete_objects(object_context)
    assert await files() == {}


async def test_late_file_with_an_erased_key_is_deleted(
    api: Api,
    sql: Sql,
    report_context: FileContext,
    object_context: ObjectContext,
    files: Files,
    *,
    requested: None,
) -> None:
    """The attempt read the key before the erasure, and completes its upload after all the rest."""
    database = report_context.database
    attempt = await database.transaction(lambda session: attempts.claim(session, REPORT_FILES, 1))
    assert attempt is not None
    is_read, is_late = asyncio.Event(), asyncio.Event()

    class LateStorage(Storage):
        async def upload(self, key: str, chunks: Any, *, content_type: str) -> int:
            read = [chunk async for chunk in chunks]

            async def replayed() -> AsyncIterator[bytes]:
                for chunk in read:
                    yield chunk

            is_read.set()
            await is_late.wait()
            return await super().upload(key, replayed(), content_type=content_type)

    storage = LateStorage(database._settings)
    writing = asyncio.create_task(
        store_and_publish(replace(report_context, storage=storage), attempt, store_file)
    )
    await is_read.wait()
    await erase(api, ALICE)
    await delete_objects(object_context)
    await pass_delay(sql)
    await make_report(report_context, 1)
    is_late.set()
    await writing
    await storage.close()
    assert ALICE in await users_with(files)
    await delete_objects(object_context)
    assert await users_with(files) == {BOB, CAROL}
    assert list(await files()) == [(await row(sql))["object_key"]]


async def test_old_file_is_deleted_although_the_worker_is_killed_meanwhile(
    servers: LocalServers,
    api: Api,
    sql: Sql,
    run_worker: RunWorker,
    files: Files,
    *,
    requested: None,
) -> None:
    async def is_ready() -> bool:
        return bool((await row(sql))["state"] == "READY")

    async def has_begun() -> bool:
        return bool(await sql.fetchval("SELECT max(attempts) = 1 FROM objects_to_delete"))

    async with run_worker() as worker:
        await until(is_ready)
        with suspended(servers.store):
            await erase(api, ALICE)
            await until(has_begun)
            worker.kill()
            await worker.wait()
    assert await users_with(files) == {ALICE, BOB, CAROL}
    await pass_time(sql, RETRY_SECONDS)
    await pass_delay(sql)
    async with run_worker():
        await until(is_ready)

        async def is_erased() -> bool:
            return await users_with(files) == {BOB, CAROL}

        await until(is_erased)


async def test_series_of_erasures_restarts_a_report_once(
    api: Api, sql: Sql, report_context: FileContext, files: Files, *, ready: None
) -> None:
    await erase(api, ALICE)
    await pass_delay(sql, key_erasure.REMAKE_DELAY_SECONDS / 2)
    await erase(api, BOB)
    await pass_delay(sql, key_erasure.REMAKE_DELAY_SECONDS / 2)
    await make_report(report_context, 1)
    waiting = await row(sql)
    assert (waiting["state"], waiting["attempts"]) == ("QUEUED", 0)
    # The time counts from the first erasure.
    age = (waiting["now"] - waiting["remade_at"]).total_seconds()
    assert age >= key_erasure.REMAKE_DELAY_SECONDS
    assert (await report(api, "rep_1"))["downloadUrl"] is None
    await pass_delay(sql, key_erasure.REMAKE_DELAY_SECONDS / 2)
    await make_report(report_context, 1)
    assert (await row(sql))["state"] == "READY"
    assert CAROL in await users_with(files)
    await erase(api, CAROL)
    waiting = await row(sql)
    assert (waiting["now"] - waiting["remade_at"]).total_seconds() < 5


async def test_erasures_delay_a_restart_by_at_most_the_maximum(
    api: Api, sql: Sql, report_context: FileContext, *, ready: None
) -> None:
    await erase(api, ALICE)
    half_delay = key_erasure.REMAKE_DELAY_SECONDS / 2
    await pass_delay(sql, key_erasure.MAX_REMAKE_DELAY_SECONDS - half_delay)
    await erase(api, BOB)
    await make_report(report_context, 1)
    assert (await row(sql))["attempts"] == 0
    await pass_delay(sql, half_delay)
    await erase(api, CAROL)
    await make_report(report_context, 1)
    assert (await row(sql))["state"] == "READY"


async def test_interrupted_attempt_restarts_after_the_delay(
    api: Api, sql: Sql, report_context: FileContext, *, ready: None
) -> None:
    await erase(api, ALICE)
    await pass_delay(sql, key_erasure.MAX_REMAKE_DELAY_SECONDS + 60)
    attempt = await report_context.database.transaction(
        lambda session: attempts.claim(session, REPORT_FILES, 1)
    )
    assert attempt is not None
    await erase(api, BOB)
    await make_report(report_context, 1)
    interrupted = await row(sql)
    assert (interrupted["state"], interrupted["attempts"]) == ("QUEUED", 0)
    wait = (interrupted["next_attempt_at"] - interrupted["now"]).total_seconds()
    assert key_erasure.REMAKE_DELAY_SECONDS - 5 < wait <= key_erasure.REMAKE_DELAY_SECONDS
    await erase(api, CAROL)
    assert (await row(sql))["next_attempt_at"] == interrupted["next_attempt_at"]


async def test_erasure_does_not_delay_a_report_that_was_never_started(
    api: Api, sql: Sql, report_context: FileContext, files: Files, *, requested: None
) -> None:
    await erase(api, ALICE)
    await make_report(report_context, 1)
    assert (await row(sql))["state"] == "READY"
    assert await users_with(files) == {BOB, CAROL}


async def test_series_of_erasures_sends_one_message(
    sql: Sql, report_context: FileContext, sent: list[Message], *, ready: None
) -> None:
    sent.clear()
    for user_id in KEYS:
        await report_context.database.transaction(
            lambda session, user_id=user_id: key_erasure.remake_reports_with_keys(  # type: ignore[misc]
                session, [user_id]
            )
        )
    delay_seconds = key_erasure.REMAKE_DELAY_SECONDS
    assert [message for message in sent if message.job == MAKE_REPORT] == [
        Message(MAKE_REPORT, (1,), delay_seconds=delay_seconds)
    ]


async def test_attempt_without_lease_discards_its_object_again(
    api: Api,
    sql: Sql,
    report_context: FileContext,
    sent: list[Message],
    monkeypatch: pytest.MonkeyPatch,
    *,
    requested: None,
) -> None:
    """The store may complete an upload that the loss of the lease cancels."""
    monkeypatch.setattr(attempts, "HEARTBEAT_SECONDS", 0.01)
    is_uploading = asyncio.Event()

    class StuckStorage(Storage):
        async def upload(self, key: str, chunks: Any, *, content_type: str) -> int:
            is_uploading.set()
            await asyncio.Event().wait()
            raise AssertionError

    storage = StuckStorage(report_context.database._settings)
    making = asyncio.create_task(make_report(replace(report_context, storage=storage), 1))
    await is_uploading.wait()
    object_key = (await row(sql))["object_key"]
    await sql.execute("UPDATE reports SET object_key = 'another attempt'")
    await making
    assert Message(DELETE_OBJECTS) in sent
    discarded = await sql.fetchrow(
        "SELECT object_key, delete_after < now() AS is_due FROM objects_to_delete"
    )
    assert discarded is not None
    assert tuple(discarded) == (object_key, True)
