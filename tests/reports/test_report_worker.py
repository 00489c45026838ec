"""A worker process generates reports, also after processes died."""

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
from segmentql.csv_files import attempts
from segmentql.local import LocalServers, with_database
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
async def march_membership(api: Api, sql: Sql, storage: Storage) -> None:
    """Store a membership of user 7 in `a` for a day of March 2024."""
    await make_segments(api, "a")
    await create_user(api, id="7")
    await insert_past_membership(sql, 7, "a", joined_at=MARCH, left_at=MARCH.replace(day=2))


async def row(sql: Sql) -> Any:
    return await sql.fetchrow("SELECT * FROM reports")


async def downloaded(link: str) -> bytes:
    async with httpx.AsyncClient() as client:
        response = await client.get(link)
    assert response.status_code == 200
    return response.content


async def uploads(storage: Storage) -> list[str]:
    """Return the keys of unfinished multipart uploads."""
    client = await storage._s3.client()
    page = await client.list_multipart_uploads(Bucket=storage._bucket)
    return [upload["Key"] for upload in page.get("Uploads", [])]


async def keys(storage: Storage) -> set[str]:
    client = await storage._s3.client()
    listed = await client.list_objects_v2(Bucket=storage._bucket)
    return {item["Key"] for item in listed.get("Contents", [])}


async def test_one_request_returns_the_link_to_the_exact_bytes(
    api: Api, march_membership: None, run_worker: RunWorker
) -> None:
    async with run_worker():
        payload = await create_report(api, userId="7", year=2024, month=3, waitSeconds=30)
    ready = payload["report"]
    assert (payload["errors"], ready["status"], ready["failure"]) == ([], "READY", None)
    assert (ready["rowCount"], ready["sizeBytes"]) == (2, len(CSV))
    assert await downloaded(ready["downloadUrl"]) == CSV


async def test_hundred_concurrent_reports_are_generated(
    api: Api, sql: Sql, march_membership: None, run_worker: RunWorker
) -> None:
    async with run_worker():
        payloads = await asyncio.gather(
            *(
                create_report(api, userId="7", year=2024, month=3, waitSeconds=60)
                for _ in range(100)
            )
        )
    assert Counter(payload["report"]["status"] for payload in payloads) == {"READY": 100}
    reports = await sql.fetch("SELECT attempts, row_count, size_bytes FROM reports")
    assert Counter(map(tuple, reports)) == {(1, 2, len(CSV)): 100}
    links = [payload["report"]["downloadUrl"] for payload in payloads]
    assert len({link.partition("?")[0] for link in links}) == 100
    assert {await downloaded(link) for link in links} == {CSV}


@pytest.mark.e2e
async def test_other_worker_completes_an_interrupted_upload(
    api: Api, sql: Sql, many_joins: None, storage: Storage, run_worker: RunWorker
) -> None:
    visible_keys = await keys(storage)
    async with run_worker() as worker:
        assert (await create_report(api, year=2024, month=3))["errors"] == []
        await until(lambda: uploads(storage))
        worker.send_signal(signal.SIGSTOP)
        partial_uploads = await uploads(storage)
        assert partial_uploads == [(await row(sql))["object_key"]]
        worker.kill()
        await worker.wait()
    # The partial upload is not visible, and the report is not ready.
    assert await keys(storage) == visible_keys
    result = await report(api, "rep_1")
    assert (result["status"], result["downloadUrl"]) == ("RUNNING", None)
    await expire_lease(sql)
    async with run_worker():
        await until(lambda: is_finished(sql))

        async def is_aborted() -> bool:
            return await uploads(storage) == []

        await until(is_aborted)
    stored = await row(sql)
    assert (stored["status"], stored["attempts"], stored["row_count"]) == ("READY", 2, ROWS)
    assert await keys(storage) - visible_keys == {stored["object_key"]}
    link = (await report(api, "rep_1"))["downloadUrl"]
    assert len(await downloaded(link)) == stored["size_bytes"]


@pytest.mark.e2e
@pytest.mark.usefixtures("march_membership")
async def test_file_of_a_worker_killed_before_its_commit_is_removed(
    servers: LocalServers,
    api: Api,
    sql: Sql,
    storage: Storage,
    run_worker: RunWorker,
) -> None:
    visible_keys = await keys(storage)
    other_connection = await asyncpg.connect(with_database(servers.superuser_url, "run"))

    async def is_stored() -> bool:
        return await keys(storage) != visible_keys

    async with run_worker(SEGMENTQL_SCHEDULER="off") as worker, sql.transaction():
        # The history is locked until the report's row is locked: the worker then stores the file
        # and cannot record it.
        async with other_connection.transaction():
            await other_connection.execute("LOCK TABLE history")
            await create_report(api, userId="7", year=2024, month=3)
            await until(lambda: other_connection.fetchval(WAITING))
            await sql.execute("SELECT FROM reports FOR UPDATE")
        await until(is_stored)
        worker.kill()
        await worker.wait()
    await other_connection.close()
    assert (await report(api, "rep_1"))["status"] == "RUNNING"
    (leftover,) = await keys(storage) - visible_keys
    await expire_lease(sql)
    async with run_worker():
        await until(lambda: is_finished(sql))

        async def is_deleted() -> bool:
            return leftover not in await keys(storage)

        await until(is_deleted)
    stored = await row(sql)
    assert (stored["status"], stored["attempts"]) == ("READY", 2)
    assert stored["object_key"] != leftover
    assert await keys(storage) - visible_keys == {stored["object_key"]}


async def expire_lease(sql: Sql) -> None:
    """Move the rows back by `LEASE_SECONDS`, as if the worker had sent no heartbeat since."""
    await sql.execute(
        "UPDATE reports SET next_attempt_at = next_attempt_at - make_interval(secs => $1)",
        attempts.LEASE_SECONDS,
    )


async def is_finished(sql: Sql) -> bool:
    return bool(await sql.fetchval("SELECT count(*) FROM reports WHERE finished_at IS NOT NULL"))


async def was_attempted(sql: Sql) -> bool:
    return bool(
        await sql.fetchval("SELECT count(*) FROM reports WHERE attempts > 0 AND status = 'QUEUED'")
    )


@pytest.mark.e2e
async def test_report_is_generated_after_a_store_outage(
    servers: LocalServers, api: Api, sql: Sql, march_membership: None, run_worker: RunWorker
) -> None:
    async with run_worker():
        await servers.store.stop()
        try:
            requested = (await create_report(api, userId="7", year=2024, month=3))["report"]
            assert requested["status"] == "QUEUED"
            await until(lambda: was_attempted(sql))
            result = await api(
                '{ user(id: 7) { segments(asOf: "2024-03-01T12:00:00Z") { slug } } }',
            )
            assert result == {"user": {"segments": [{"slug": "a"}]}}
            result = await report(api, "rep_1")
            assert (result["failure"], result["finishedAt"], result["downloadUrl"]) == (
                None,
                None,
                None,
            )
            assert (await api.http.get("/readyz")).status_code == 200
        finally:
            await servers.store.start()
        await until(lambda: is_finished(sql))
    ready = await report(api, "rep_1")
    assert (ready["status"], ready["failure"], ready["rowCount"]) == ("READY", None, 2)
    assert await downloaded(ready["downloadUrl"]) == CSV


@pytest.mark.e2e
async def test_permanent_store_outage_is_the_failure_reason(
    servers: LocalServers, api: Api, sql: Sql, march_membership: None, run_worker: RunWorker
) -> None:
    async with run_worker():
        await servers.store.stop()
        try:
            await create_report(api, userId="7", year=2024, month=3)
            await until(lambda: was_attempted(sql))
            # The next attempt is the last: the rows are moved so that the test does not wait for
            # those before.
            await sql.execute(
                "UPDATE reports SET attempts = $1 WHERE status = 'QUEUED'",
                attempts.MAX_ATTEMPTS - 1,
            )
            await until(lambda: is_finished(sql))
        finally:
            await servers.store.start()
    result = await report(api, "rep_1")
    assert (result["status"], result["failure"]) == ("FAILED", "the object store cannot be reached")
    assert (result["rowCount"], result["sizeBytes"], result["downloadUrl"]) == (None, None, None)


async def test_scheduler_finds_a_report_whose_message_was_lost(
    settings: Settings, api: Api, sql: Sql, march_membership: None, run_worker: RunWorker
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
