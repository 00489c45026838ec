"""Reports as a worker process makes them, and what becomes of them when something dies."""

import asyncio
import signal
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import pytest
from redis import Redis

from segmentql.adapters.storage import Storage
from segmentql.local import LocalServers, with_database
from segmentql.reports import generation
from segmentql.settings import Settings
from tests.back_dating import insert_past_membership
from tests.conftest import Api, RunWorker, Sql, until
from tests.operations import create_user, make_segments
from tests.reports.conftest import ROWS
from tests.reports.queries import create_report, report

MARCH = datetime(2024, 3, 1, tzinfo=UTC)
CSV = b"""\
user_id,segment_slug,operation,executed_at
7,a,I,2024-03-01 00:00:00
7,a,D,2024-03-02 00:00:00
"""


WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


@pytest.fixture
async def someones_march(api: Api, sql: Sql, storage: Storage) -> None:
    """User 7 was in `a` for a day of March 2024."""
    await make_segments(api, "a")
    await create_user(api, id="7")
    await insert_past_membership(sql, 7, "a", joined_at=MARCH, left_at=MARCH.replace(day=2))


async def row(sql: Sql) -> Any:
    return await sql.fetchrow("SELECT * FROM reports")


async def downloaded(link: str) -> bytes:
    async with httpx.AsyncClient() as client:
        answer = await client.get(link)
    assert answer.status_code == 200
    return answer.content


async def uploads(storage: Storage) -> list[str]:
    """The keys that are being uploaded in parts."""
    client = await storage._s3.client()
    page = await client.list_multipart_uploads(Bucket=storage._bucket)
    return [upload["Key"] for upload in page.get("Uploads", [])]


async def keys(storage: Storage) -> set[str]:
    client = await storage._s3.client()
    listed = await client.list_objects_v2(Bucket=storage._bucket)
    return {found["Key"] for found in listed.get("Contents", [])}


async def test_one_call_gives_the_link_to_the_exact_bytes(
    api: Api, someones_march: None, run_worker: RunWorker
) -> None:
    async with run_worker():
        payload = await create_report(api, userId="7", year=2024, month=3, waitSeconds=30)
    ready = payload["report"]
    assert (payload["errors"], ready["status"], ready["failure"]) == ([], "READY", None)
    assert (ready["rowCount"], ready["sizeBytes"]) == (2, len(CSV))
    assert await downloaded(ready["downloadUrl"]) == CSV


async def test_a_hundred_reports_asked_at_once_are_all_made(
    api: Api, sql: Sql, someones_march: None, run_worker: RunWorker
) -> None:
    async with run_worker():
        payloads = await asyncio.gather(
            *(
                create_report(api, userId="7", year=2024, month=3, waitSeconds=60)
                for _ in range(100)
            )
        )
    assert Counter(payload["report"]["status"] for payload in payloads) == {"READY": 100}
    made = await sql.fetch("SELECT attempts, row_count, size_bytes FROM reports")
    assert Counter(map(tuple, made)) == {(1, 2, len(CSV)): 100}
    links = [payload["report"]["downloadUrl"] for payload in payloads]
    assert len({link.partition("?")[0] for link in links}) == 100
    assert {await downloaded(link) for link in links} == {CSV}


@pytest.mark.e2e
async def test_what_a_worker_killed_in_the_middle_of_an_upload_left_is_made_by_another(
    api: Api, sql: Sql, many_joins: None, storage: Storage, run_worker: RunWorker
) -> None:
    shown = await keys(storage)
    async with run_worker() as worker:
        assert (await create_report(api, year=2024, month=3))["errors"] == []
        await until(lambda: uploads(storage))
        worker.send_signal(signal.SIGSTOP)
        half = await uploads(storage)
        assert half == [(await row(sql))["object_key"]]
        worker.kill()
        await worker.wait()
    # The half is nobody's to see, and is not said to be ready.
    assert await keys(storage) == shown
    told = await report(api, "rep_1")
    assert (told["status"], told["downloadUrl"]) == ("RUNNING", None)
    await is_silent_for_long(sql)
    async with run_worker():
        await until(lambda: is_finished(sql))
    made = await row(sql)
    assert (made["status"], made["attempts"], made["row_count"]) == ("READY", 2, ROWS)
    assert await keys(storage) - shown == {made["object_key"]}
    assert await uploads(storage) == []
    link = (await report(api, "rep_1"))["downloadUrl"]
    assert len(await downloaded(link)) == made["size_bytes"]


@pytest.mark.e2e
@pytest.mark.usefixtures("someones_march")
async def test_a_file_whose_worker_was_killed_before_it_told_of_it_is_taken_back(
    servers: LocalServers,
    api: Api,
    sql: Sql,
    storage: Storage,
    run_worker: RunWorker,
) -> None:
    shown = await keys(storage)
    other = await asyncpg.connect(with_database(servers.superuser_url, "run"))

    async def is_stored() -> bool:
        return await keys(storage) != shown

    async with run_worker(SEGMENTQL_SCHEDULER="off") as worker, sql.transaction():
        # The history is locked until the report's row is: its worker stores the file then, and
        # cannot tell of it.
        async with other.transaction():
            await other.execute("LOCK TABLE history")
            await create_report(api, userId="7", year=2024, month=3)
            await until(lambda: other.fetchval(WAITING))
            await sql.execute("SELECT FROM reports FOR UPDATE")
        await until(is_stored)
        worker.kill()
        await worker.wait()
    await other.close()
    assert (await report(api, "rep_1"))["status"] == "RUNNING"
    (left,) = await keys(storage) - shown
    await is_silent_for_long(sql)
    async with run_worker():
        await until(lambda: is_finished(sql))
    made = await row(sql)
    assert (made["status"], made["attempts"]) == ("READY", 2)
    assert made["object_key"] != left
    assert await keys(storage) - shown == {made["object_key"]}


async def is_silent_for_long(sql: Sql) -> None:
    """As if the report's worker had not been heard of for `LEASE_SECONDS`: rows are moved."""
    await sql.execute(
        "UPDATE reports SET next_attempt_at = next_attempt_at - make_interval(secs => $1)",
        generation.LEASE_SECONDS,
    )


async def is_finished(sql: Sql) -> bool:
    return bool(await sql.fetchval("SELECT count(*) FROM reports WHERE finished_at IS NOT NULL"))


async def was_attempted(sql: Sql) -> bool:
    return bool(
        await sql.fetchval("SELECT count(*) FROM reports WHERE attempts > 0 AND status = 'QUEUED'")
    )


@pytest.mark.e2e
async def test_a_report_asked_while_the_store_is_away_is_made_once_it_is_back(
    servers: LocalServers, api: Api, sql: Sql, someones_march: None, run_worker: RunWorker
) -> None:
    async with run_worker():
        await servers.store.stop()
        try:
            asked = (await create_report(api, userId="7", year=2024, month=3))["report"]
            assert asked["status"] == "QUEUED"
            await until(lambda: was_attempted(sql))
            told = await api(
                '{ user(id: 7) { segments(asOf: "2024-03-01T12:00:00Z") { slug } } }',
            )
            assert told == {"user": {"segments": [{"slug": "a"}]}}
            told = await report(api, "rep_1")
            assert (told["failure"], told["finishedAt"], told["downloadUrl"]) == (None, None, None)
            assert (await api.http.get("/readyz")).status_code == 200
        finally:
            await servers.store.start()
        await until(lambda: is_finished(sql))
    ready = await report(api, "rep_1")
    assert (ready["status"], ready["failure"], ready["rowCount"]) == ("READY", None, 2)
    assert await downloaded(ready["downloadUrl"]) == CSV


@pytest.mark.e2e
async def test_a_store_that_stays_away_is_told_as_the_reason(
    servers: LocalServers, api: Api, sql: Sql, someones_march: None, run_worker: RunWorker
) -> None:
    async with run_worker():
        await servers.store.stop()
        try:
            await create_report(api, userId="7", year=2024, month=3)
            await until(lambda: was_attempted(sql))
            # The next try is the last: rows are moved, and nobody waits for the ones between.
            await sql.execute(
                "UPDATE reports SET attempts = $1 WHERE status = 'QUEUED'",
                generation.MAX_ATTEMPTS - 1,
            )
            await until(lambda: is_finished(sql))
        finally:
            await servers.store.start()
    told = await report(api, "rep_1")
    assert (told["status"], told["failure"]) == ("FAILED", "the object store cannot be reached")
    assert (told["rowCount"], told["sizeBytes"], told["downloadUrl"]) == (None, None, None)


async def test_a_report_whose_message_went_with_redis_is_found_by_the_scheduler(
    settings: Settings, api: Api, sql: Sql, someones_march: None, run_worker: RunWorker
) -> None:
    redis = Redis.from_url(settings.redis_url)

    async def message_waits() -> bool:
        return redis.llen("dramatiq:reports") == 1

    assert (await create_report(api, userId="7", year=2024, month=3))["errors"] == []
    await until(message_waits)
    redis.flushall()
    redis.close()
    async with run_worker():
        await until(lambda: is_finished(sql))
    assert ((await row(sql))["status"], (await row(sql))["attempts"]) == ("READY", 1)
