"""Real `segmentql worker` processes run rollouts despite lost messages, crashes and stops.

To stop a pass at a known point, a test locks a user of its third chunk.
"""

import signal
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from redis import Redis

from segmentql.adapters.jobs import Job, JobPublisher, Message
from segmentql.rollouts.chunks import CHUNK_USERS
from segmentql.rollouts.jobs import ADVANCE_ROLLOUT, START_ROLLOUT_STAGE
from segmentql.settings import Settings
from tests.conftest import Api, RunWorker, Sql, until
from tests.operations import parse_timestamp
from tests.rollouts.helpers import expected_sample, members, membership_ids, store_users
from tests.rollouts.three_chunks import USERS, assert_exact, in_third_chunk
from tests.rollouts.worker_helpers import (
    count_blocked_workers,
    create_segment_with_rollout,
    has_status,
    is_logged,
    locked_user,
    read_pass,
    read_rollout,
    replace_rollout,
    stage_statuses,
    worker_is_blocked,
)

pytestmark = pytest.mark.usefixtures("reject_lost_progress")

FEW = 2_000


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    client = Redis.from_url(settings.redis_url)
    yield client
    client.close()


async def messages_wait(redis: Redis, job: Job, number: int, *, delayed: bool = False) -> bool:
    return redis.llen(f"dramatiq:{job.queue}{'.DQ' if delayed else ''}") == number


def send(settings: Settings, messages: Sequence[Message]) -> None:
    """Send extra messages; Redis has stored them when this returns."""
    publisher = JobPublisher(settings.redis_url)
    publisher.publish(messages)
    publisher.close()


async def only_one_is_unfinished(redis: Redis, job: Job) -> bool:
    """Return whether exactly one message is unfinished."""
    return redis.hlen(f"dramatiq:{job.queue}.msgs") == 1


# --- Messages and the scheduler -------------------------------------------------------------------


async def test_messages_alone_complete_a_rollout(api: Api, sql: Sql, run_worker: RunWorker) -> None:
    await store_users(sql, len(USERS))
    async with run_worker(SEGMENTQL_SCHEDULER="off"):
        await create_segment_with_rollout(api, "A", percent=12.5)
        await until(partial(has_status, api, "A", "COMPLETED"))
        await assert_exact(sql, 1, USERS, 12.5)
        rollout = await read_rollout(api, "A")
        assert (rollout["usersTotal"], rollout["usersSeen"], rollout["progress"]) == (
            len(USERS),
            len(USERS),
            1,
        )
        assert (rollout["enrolled"], rollout["failure"]) == (len(USERS) // 8, None)
        assert parse_timestamp(rollout["startedAt"]) <= parse_timestamp(rollout["finishedAt"])

        await replace_rollout(api, "A", percent=0)
        await until(partial(has_status, api, "A", "COMPLETED"))
        assert await members(sql, 1) == {}


async def assert_none_joined_before(sql: Sql, start: str, *, but: set[int]) -> None:
    rows = await sql.fetch(
        "SELECT user_id FROM memberships WHERE joined_at < $1", parse_timestamp(start)
    )
    assert {row["user_id"] for row in rows} == but


async def test_delayed_message_alone_starts_a_stage(
    api: Api, sql: Sql, run_worker: RunWorker
) -> None:
    users = await store_users(sql, FEW)
    async with run_worker(SEGMENTQL_SCHEDULER="off"):
        await create_segment_with_rollout(
            api, "A", stages=[{"percent": 10}, {"percent": 50, "afterSeconds": 3}]
        )
        await until(partial(has_status, api, "A", "COMPLETED"))
    rollout = await read_rollout(api, "A")
    assert stage_statuses(rollout) == ["DONE", "DONE"]
    first = expected_sample(1, users, 10)
    await assert_none_joined_before(sql, rollout["stages"][1]["startsAt"], but=first)
    await assert_exact(sql, 1, users, 50)


async def test_scheduler_starts_a_stage_whose_message_was_lost(
    api: Api, sql: Sql, redis: Redis, run_worker: RunWorker
) -> None:
    users = await store_users(sql, FEW)
    await create_segment_with_rollout(api, "A", stages=[{"percent": 50, "afterSeconds": 3}])
    await until(partial(messages_wait, redis, START_ROLLOUT_STAGE, 1, delayed=True))
    redis.flushall()
    async with run_worker():
        await until(partial(has_status, api, "A", "COMPLETED"))
    rollout = await read_rollout(api, "A")
    assert stage_statuses(rollout) == ["DONE"]
    await assert_none_joined_before(sql, rollout["stages"][0]["startsAt"], but=set())
    await assert_exact(sql, 1, users, 50)


# --- Killed, stopped and several workers ----------------------------------------------------------


async def test_another_worker_continues_the_pass_of_a_killed_worker(
    api: Api, sql: Sql, url: str, run_worker: RunWorker
) -> None:
    await store_users(sql, len(USERS))
    async with locked_user(url, in_third_chunk(1, 10)):
        async with run_worker() as worker:
            await create_segment_with_rollout(api, "A", percent=10)
            await until(partial(worker_is_blocked, sql))
            worker.kill()
            await worker.wait()
        before = await read_pass(sql, 1)
        assert before["cursor_user_id"] == 2 * CHUNK_USERS
        joined = await membership_ids(sql, 1)
        assert len(joined) == sum(
            user_id <= 2 * CHUNK_USERS for user_id in expected_sample(1, USERS, 10)
        )
        rollout = await read_rollout(api, "A")
        assert (rollout["status"], rollout["usersSeen"]) == ("RUNNING", 2 * CHUNK_USERS)
    async with run_worker():
        await until(partial(has_status, api, "A", "COMPLETED"))
    assert (await read_pass(sql, 1))["pass_number"] == before["pass_number"]
    assert joined.items() <= (await membership_ids(sql, 1)).items()
    await assert_exact(sql, 1, USERS, 10)


async def test_two_workers_never_work_on_the_same_chunk(
    *, api: Api, sql: Sql, redis: Redis, settings: Settings, url: str, run_worker: RunWorker
) -> None:
    await store_users(sql, len(USERS))
    percents = {"A": 10, "B": 5, "C": 15}
    async with run_worker(), run_worker():
        async with locked_user(url, in_third_chunk(1, 10)):
            await create_segment_with_rollout(api, "A", percent=10)
            await until(partial(worker_is_blocked, sql))
            send(settings, [Message(ADVANCE_ROLLOUT, (1,))] * 20)
            await until(partial(only_one_is_unfinished, redis, ADVANCE_ROLLOUT))
            assert await count_blocked_workers(sql) == 1
            await create_segment_with_rollout(api, "B", percent=5)
            await create_segment_with_rollout(api, "C", percent=15)
        for slug in percents:
            await until(partial(has_status, api, slug, "COMPLETED"))
    for row in await sql.fetch("SELECT id, slug FROM segments"):
        await assert_exact(sql, row["id"], USERS, percents[row["slug"]])


async def test_sigterm_finishes_the_current_job_and_requeues_the_rest(
    *, api: Api, sql: Sql, redis: Redis, url: str, run_worker: RunWorker, tmp_path: Path
) -> None:
    await store_users(sql, len(USERS))
    alone = partial(run_worker, SEGMENTQL_SCHEDULER="off", SEGMENTQL_WORKER_THREADS="1")
    async with alone() as worker:
        async with locked_user(url, in_third_chunk(1, 10)):
            await create_segment_with_rollout(api, "A", percent=10)
            await until(partial(worker_is_blocked, sql))
            await create_segment_with_rollout(api, "B", percent=10)
            worker.send_signal(signal.SIGTERM)
            await until(partial(is_logged, tmp_path / "worker-1.log", "worker_stopping"))
        assert await worker.wait() == 0
    # The job may or may not have finished the pass: the members match the cursor.
    at = await read_pass(sql, 1)
    assert at["cursor_user_id"] >= 2 * CHUNK_USERS
    assert (await members(sql, 1)).keys() == {
        user_id
        for user_id in expected_sample(1, USERS, 10)
        if user_id <= at["cursor_user_id"] or at["phase"] == "DONE"
    }
    assert await members(sql, 2) == {}
    assert await messages_wait(redis, ADVANCE_ROLLOUT, 1 if at["phase"] == "DONE" else 2)
    async with alone():
        for slug in ("A", "B"):
            await until(partial(has_status, api, slug, "COMPLETED"))
    await assert_exact(sql, 1, USERS, 10)
    await assert_exact(sql, 2, USERS, 10)
