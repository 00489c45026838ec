"""A worker completes a rollout despite outages of the database and failed changes.

To stop a pass at a known point, a test locks a user of its third chunk.
"""

from functools import partial
from pathlib import Path

import asyncpg
import pytest

from segmentql.local import LocalServers
from segmentql.rollouts.chunks import CHUNK_USERS
from segmentql.rollouts.passes import MAX_FAILURES
from tests.conftest import Api, RunWorker, Sql, until
from tests.rollouts.helpers import expected_sample, members, store_users
from tests.rollouts.three_chunks import USERS, assert_exact, in_third_chunk
from tests.rollouts.worker_helpers import (
    create_segment_with_rollout,
    has_status,
    is_logged,
    locked_user,
    read_pass,
    read_rollout,
    resume_rollout,
    stage_statuses,
    worker_is_blocked,
)

pytestmark = pytest.mark.usefixtures("reject_lost_progress")


async def test_database_outage_does_not_fail_the_rollout(
    *, api: Api, servers: LocalServers, sql: Sql, url: str, run_worker: RunWorker, tmp_path: Path
) -> None:
    await store_users(sql, len(USERS))
    log = tmp_path / "worker-1.log"
    async with run_worker():
        async with locked_user(url, in_third_chunk(1, 10)):
            await create_segment_with_rollout(api, "A", percent=10)
            await until(partial(worker_is_blocked, sql))
            await servers.postgres.stop()
        try:
            await until(partial(is_logged, log, "scheduler_failed"))
        finally:
            await servers.postgres.start()
        fresh = await asyncpg.connect(url)
        await until(partial(has_status, api, "A", "COMPLETED"))
    rollout = await read_rollout(api, "A")
    assert (rollout["failure"], (await read_pass(fresh, 1))["failures"]) == (None, 0)
    await assert_exact(fresh, 1, USERS, 10)
    await fresh.close()


async def test_repeated_connection_losses_do_not_fail_the_rollout(
    api: Api, sql: Sql, url: str, run_worker: RunWorker
) -> None:
    await store_users(sql, len(USERS))
    async with run_worker():
        async with locked_user(url, in_third_chunk(1, 10)):
            await create_segment_with_rollout(api, "A", percent=10)
            for _ in range(2 * MAX_FAILURES):  # each job makes two attempts
                await until(partial(worker_is_blocked, sql))
                await sql.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                    "WHERE application_name = 'segmentql worker' AND wait_event_type = 'Lock'"
                )
            await until(partial(worker_is_blocked, sql))
            assert (await read_rollout(api, "A"))["status"] == "RUNNING"
            assert (await read_pass(sql, 1))["failures"] == 0
        await until(partial(has_status, api, "A", "COMPLETED"))
    await assert_exact(sql, 1, USERS, 10)


async def test_failed_rollout_completes_after_the_cause_is_fixed_and_resumed(
    api: Api, sql: Sql, run_worker: RunWorker
) -> None:
    await store_users(sql, len(USERS))
    sample = expected_sample(1, USERS, 10)
    rejected_user = in_third_chunk(1, 10)
    await sql.execute(
        f"ALTER TABLE memberships ADD CONSTRAINT nobody CHECK (user_id <> {rejected_user})"
    )
    try:
        async with run_worker():
            await create_segment_with_rollout(api, "A", percent=10)
            await until(partial(has_status, api, "A", "FAILED"))
            rollout = await read_rollout(api, "A")
            assert rollout["failure"] == "repeated internal errors; see the worker's log"
            assert rollout["usersSeen"] == 2 * CHUNK_USERS
            assert stage_statuses(rollout) == ["ACTIVE"]
            assert (await members(sql, 1)).keys() == {
                user_id for user_id in sample if user_id <= 2 * CHUNK_USERS
            }
            await sql.execute("ALTER TABLE memberships DROP CONSTRAINT nobody")
            await resume_rollout(api, "A")
            await until(partial(has_status, api, "A", "COMPLETED"))
    finally:
        await sql.execute("ALTER TABLE memberships DROP CONSTRAINT IF EXISTS nobody")
    assert (await read_rollout(api, "A"))["failure"] is None
    await assert_exact(sql, 1, USERS, 10)
