"""No file in the store has an erased key, whatever fails."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from segmentql.adapters.jobs import Message
from segmentql.adapters.storage import Storage
from segmentql.csv_files import attempts
from segmentql.csv_files.generation import FileContext, store_and_publish
from segmentql.local import LocalServers
from segmentql.objects.actors import ObjectContext, delete_objects
from segmentql.objects.jobs import DELETE_OBJECTS
from segmentql.objects.service import RETRY_SECONDS
from segmentql.reports.actors import make_report, store_file
from segmentql.reports.file_kind import REPORT_FILES
from tests.conftest import Api, RunWorker, Sql, suspended, until
from tests.objects.queries import pass_time
from tests.reports.erased_keys import ALICE, BOB, CAROL, Files, erase, pass_delay, row, users_with


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
