"""A worker process makes exports, also after a process was killed while it wrote one."""

import signal
from typing import Any

import asyncpg
import pytest

from segmentql.adapters.storage import Storage
from segmentql.csv_files import attempts
from segmentql.local import LocalServers, with_database
from tests.back_dating import insert_membership
from tests.conftest import Api, RunWorker, Sql, until
from tests.exports.queries import create_export, download, export
from tests.exports.test_generation import row, started_uploads
from tests.operations import make_segments
from tests.timeline import add_members

MEMBERS = 300_000
"""The number of rows of about 13 MB of CSV: three parts, so that an upload can be interrupted."""

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


async def keys(storage: Storage) -> set[str]:
    """Return the keys of the store, which include files of other tests."""
    client = await storage._s3.client()
    listed = await client.list_objects_v2(Bucket=storage._bucket)
    return {item["Key"] for item in listed.get("Contents", [])}


async def is_finished(sql: Sql) -> bool:
    return bool(await sql.fetchval("SELECT count(*) FROM exports WHERE finished_at IS NOT NULL"))


async def end_lease(sql: Sql) -> None:
    """Move the row back by `LEASE_SECONDS`, as if the worker had sent no heartbeat since."""
    await sql.execute(
        "UPDATE exports SET next_attempt_at = next_attempt_at - make_interval(secs => $1)",
        attempts.LEASE_SECONDS,
    )


async def test_worker_makes_the_file(
    api: Api, sql: Sql, storage: Storage, run_worker: RunWorker
) -> None:
    await make_segments(api, "a")
    await insert_membership(sql, 7, "a")
    async with run_worker():
        payload = await create_export(api, gzip=True, waitSeconds=30)
    ready = payload["export"]
    assert (payload["errors"], ready["status"], ready["rowCount"]) == ([], "READY", 1)
    assert ready["fileName"].endswith(".csv.gz")


@pytest.mark.e2e  # It stores 300,000 members.
async def test_worker_killed_while_it_writes_leaves_nothing(
    api: Api, sql: Sql, storage: Storage, run_worker: RunWorker
) -> None:
    await make_segments(api, "a")
    await add_members(sql, 1, MEMBERS)
    visible_keys = await keys(storage)
    async with run_worker() as worker:
        assert (await create_export(api))["errors"] == []
        await until(lambda: started_uploads(storage))
        worker.send_signal(signal.SIGSTOP)
        assert await started_uploads(storage) == [(await row(sql))["object_key"]]
        worker.kill()
        await worker.wait()
    assert await keys(storage) == visible_keys
    running = await export(api, "exp_1")
    assert (running["status"], running["downloadUrl"]) == ("RUNNING", None)
    await end_lease(sql)
    async with run_worker():
        await until(lambda: is_finished(sql))

        async def no_part_is_left() -> bool:
            return await started_uploads(storage) == []

        await until(no_part_is_left)
    stored = await row(sql)
    assert (stored["status"], stored["attempts"], stored["row_count"]) == ("READY", 2, MEMBERS)
    assert await keys(storage) - visible_keys == {stored["object_key"]}
    file = await download((await export(api, "exp_1"))["downloadUrl"])
    assert len(file.content) == stored["size_bytes"]
    assert file.content.count(b"\n") == MEMBERS + 1


@pytest.mark.e2e
async def test_file_of_a_worker_killed_before_its_commit_is_deleted(
    servers: LocalServers, api: Api, sql: Sql, storage: Storage, run_worker: RunWorker
) -> None:
    await make_segments(api, "a")
    await insert_membership(sql, 7, "a")
    visible_keys = await keys(storage)
    other: Any = await asyncpg.connect(with_database(servers.superuser_url, "run"))

    async def is_stored() -> bool:
        return await keys(storage) != visible_keys

    async with run_worker(SEGMENTQL_SCHEDULER="off") as worker, sql.transaction():
        # The members are locked until the export's row is locked: the worker then stores the file
        # and cannot record it.
        async with other.transaction():
            await other.execute("LOCK TABLE memberships")
            await create_export(api)
            await until(lambda: other.fetchval(WAITING))
            await sql.execute("SELECT FROM exports FOR UPDATE")
        await until(is_stored)
        worker.kill()
        await worker.wait()
    await other.close()
    assert (await export(api, "exp_1"))["status"] == "RUNNING"
    (leftover,) = await keys(storage) - visible_keys
    await end_lease(sql)
    async with run_worker():
        await until(lambda: is_finished(sql))

        async def is_deleted() -> bool:
            return leftover not in await keys(storage)

        await until(is_deleted)
    stored = await row(sql)
    assert (stored["status"], stored["attempts"], stored["row_count"]) == ("READY", 2, 1)
    assert await keys(storage) - visible_keys == {stored["object_key"]}
