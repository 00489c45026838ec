"""Rollouts by `segmentql worker` as it is run: real messages, crashes, and things that are away.

To be in the middle of a pass is no matter of luck here: somebody holds a user of its third chunk.
"""

import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from redis import Redis

from segmentql.adapters.jobs import ADVANCE_ROLLOUT, START_ROLLOUT_STAGE, Job, Message, Sender
from segmentql.local import LocalServers, named
from segmentql.rollouts.passes import CHUNK_USERS, MAX_FAILURES
from segmentql.settings import Settings
from tests.conftest import Api, RunWorker, Sql, until
from tests.operations import moment
from tests.rollouts.helpers import members, membership_ids, sample_of, store_users, written
from tests.rollouts.worker_helpers import (
    assert_in_are,
    create_with,
    held,
    is_in_status,
    no_way_back,
    pass_of,
    read,
    resume,
    set_to,
    stage_statuses,
    worker_waits,
    workers_waiting,
)

USERS = range(1, 2 * CHUNK_USERS + 2_001)
"""Three chunks, the last one short."""
FEW = 2_000


@pytest.fixture
def url(servers: LocalServers) -> str:
    """Of this run's database, for a superuser's further sessions."""
    return named(servers.superuser_url, "run")


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    client = Redis.from_url(settings.redis_url)
    yield client
    client.close()


@pytest.fixture(autouse=True)
async def guarded(sql: Sql, url: str) -> AsyncIterator[None]:
    """No pass of these tests may go back."""
    async with no_way_back(url):
        yield


def in_third_chunk(segment_id: int, percent: float) -> int:
    """A user of the sample."""
    sample = sample_of(segment_id, USERS, percent)
    return min(user_id for user_id in sample if user_id > 2 * CHUNK_USERS)


async def assert_exact(sql: Sql, segment_id: int, users: range, percent: float) -> None:
    """Each of the sample is in, joined once, and nothing else was written of the segment."""
    sample = sample_of(segment_id, users, percent)
    await assert_in_are(sql, segment_id, sample)
    assert await written(sql, segment_id) == {("JOINED", "ROLLOUT"): len(sample)}


async def messages_wait(redis: Redis, job: Job, number: int, *, delayed: bool = False) -> bool:
    return redis.llen(f"dramatiq:{job.queue}{'.DQ' if delayed else ''}") == number


def send(settings: Settings, messages: Sequence[Message]) -> None:
    """Send messages that nobody asked for; Redis has them when this returns."""
    sender = Sender(settings.redis_url)
    sender.deliver(messages)
    sender.close()


async def only_one_is_unfinished(redis: Redis, job: Job) -> bool:
    """Whether of the messages sent so far one is being worked on, and no other is left."""
    return redis.hlen(f"dramatiq:{job.queue}.msgs") == 1


async def says(log: Path, text: str) -> bool:
    return text in log.read_text()


# --- By message, and by the scheduler -------------------------------------------------------------


async def test_with_the_scheduler_off_a_rollout_is_carried_out_by_its_messages(
    api: Api, sql: Sql, run_worker: RunWorker
) -> None:
    await store_users(sql, len(USERS))
    async with run_worker(SEGMENTQL_SCHEDULER="off"):
        await create_with(api, "A", percent=12.5)
        await until(partial(is_in_status, api, "A", "COMPLETED"))
        await assert_exact(sql, 1, USERS, 12.5)
        rollout = await read(api, "A")
        assert (rollout["usersTotal"], rollout["usersSeen"], rollout["progress"]) == (
            len(USERS),
            len(USERS),
            1,
        )
        assert (rollout["enrolled"], rollout["failure"]) == (len(USERS) // 8, None)
        assert moment(rollout["startedAt"]) <= moment(rollout["finishedAt"])

        await set_to(api, "A", percent=0)
        await until(partial(is_in_status, api, "A", "COMPLETED"))
        assert await members(sql, 1) == {}


async def assert_none_joined_before(sql: Sql, start: str, *, but: set[int]) -> None:
    rows = await sql.fetch("SELECT user_id FROM memberships WHERE joined_at < $1", moment(start))
    assert {row["user_id"] for row in rows} == but


async def test_with_the_scheduler_off_a_stage_starts_by_its_delayed_message(
    api: Api, sql: Sql, run_worker: RunWorker
) -> None:
    users = await store_users(sql, FEW)
    async with run_worker(SEGMENTQL_SCHEDULER="off"):
        await create_with(api, "A", stages=[{"percent": 10}, {"percent": 50, "afterSeconds": 3}])
        await until(partial(is_in_status, api, "A", "COMPLETED"))
    rollout = await read(api, "A")
    assert stage_statuses(rollout) == ["DONE", "DONE"]
    first = sample_of(1, users, 10)
    await assert_none_joined_before(sql, rollout["stages"][1]["startsAt"], but=first)
    await assert_exact(sql, 1, users, 50)


async def test_a_stage_whose_message_was_lost_is_started_by_the_scheduler(
    api: Api, sql: Sql, redis: Redis, run_worker: RunWorker
) -> None:
    users = await store_users(sql, FEW)
    await create_with(api, "A", stages=[{"percent": 50, "afterSeconds": 3}])
    await until(partial(messages_wait, redis, START_ROLLOUT_STAGE, 1, delayed=True))
    redis.flushall()
    async with run_worker():
        await until(partial(is_in_status, api, "A", "COMPLETED"))
    rollout = await read(api, "A")
    assert stage_statuses(rollout) == ["DONE"]
    await assert_none_joined_before(sql, rollout["stages"][0]["startsAt"], but=set())
    await assert_exact(sql, 1, users, 50)


# --- Workers that die, stop, or are two -----------------------------------------------------------


async def test_after_a_kill_in_the_middle_of_a_pass_another_worker_goes_on_where_it_was(
    api: Api, sql: Sql, url: str, run_worker: RunWorker
) -> None:
    await store_users(sql, len(USERS))
    async with held(url, in_third_chunk(1, 10)):
        async with run_worker() as worker:
            await create_with(api, "A", percent=10)
            await until(partial(worker_waits, sql))
            worker.kill()
            await worker.wait()
        before = await pass_of(sql, 1)
        assert before["cursor_user_id"] == 2 * CHUNK_USERS
        joined = await membership_ids(sql, 1)
        assert len(joined) == sum(user_id <= 2 * CHUNK_USERS for user_id in sample_of(1, USERS, 10))
        rollout = await read(api, "A")
        assert (rollout["status"], rollout["usersSeen"]) == ("RUNNING", 2 * CHUNK_USERS)
    async with run_worker():
        await until(partial(is_in_status, api, "A", "COMPLETED"))
    assert (await pass_of(sql, 1))["pass_number"] == before["pass_number"]
    assert joined.items() <= (await membership_ids(sql, 1)).items()
    await assert_exact(sql, 1, USERS, 10)


async def test_two_workers_at_once_carry_out_rollouts_exactly_and_no_chunk_together(
    *, api: Api, sql: Sql, redis: Redis, settings: Settings, url: str, run_worker: RunWorker
) -> None:
    await store_users(sql, len(USERS))
    percents = {"A": 10, "B": 5, "C": 15}
    async with run_worker(), run_worker():
        async with held(url, in_third_chunk(1, 10)):
            await create_with(api, "A", percent=10)
            await until(partial(worker_waits, sql))
            send(settings, [Message(ADVANCE_ROLLOUT, (1,))] * 20)
            await until(partial(only_one_is_unfinished, redis, ADVANCE_ROLLOUT))
            assert await workers_waiting(sql) == 1
            await create_with(api, "B", percent=5)
            await create_with(api, "C", percent=15)
        for slug in percents:
            await until(partial(is_in_status, api, slug, "COMPLETED"))
    for row in await sql.fetch("SELECT id, slug FROM segments"):
        await assert_exact(sql, row["id"], USERS, percents[row["slug"]])


async def test_sigterm_lets_the_turn_under_way_finish_and_hands_back_the_rest(
    *, api: Api, sql: Sql, redis: Redis, url: str, run_worker: RunWorker, tmp_path: Path
) -> None:
    await store_users(sql, len(USERS))
    alone = partial(run_worker, SEGMENTQL_SCHEDULER="off", SEGMENTQL_WORKER_THREADS="1")
    async with alone() as worker:
        async with held(url, in_third_chunk(1, 10)):
            await create_with(api, "A", percent=10)
            await until(partial(worker_waits, sql))
            await create_with(api, "B", percent=10)
            worker.send_signal(signal.SIGTERM)
            await until(partial(says, tmp_path / "worker-1.log", "worker_stopping"))
        assert await worker.wait() == 0
    # Whether or not its turn was long enough for all: who is in is what the cursor says.
    at = await pass_of(sql, 1)
    assert at["cursor_user_id"] >= 2 * CHUNK_USERS
    assert (await members(sql, 1)).keys() == {
        user_id
        for user_id in sample_of(1, USERS, 10)
        if user_id <= at["cursor_user_id"] or at["phase"] == "DONE"
    }
    assert await members(sql, 2) == {}
    assert await messages_wait(redis, ADVANCE_ROLLOUT, 1 if at["phase"] == "DONE" else 2)
    async with alone():
        for slug in ("A", "B"):
            await until(partial(is_in_status, api, slug, "COMPLETED"))
    await assert_exact(sql, 1, USERS, 10)
    await assert_exact(sql, 2, USERS, 10)


# --- What goes wrong ------------------------------------------------------------------------------


async def test_a_database_that_is_away_in_the_middle_of_a_pass_is_no_failure_of_the_rollout(
    *, api: Api, servers: LocalServers, sql: Sql, url: str, run_worker: RunWorker, tmp_path: Path
) -> None:
    await store_users(sql, len(USERS))
    log = tmp_path / "worker-1.log"
    async with run_worker():
        async with held(url, in_third_chunk(1, 10)):
            await create_with(api, "A", percent=10)
            await until(partial(worker_waits, sql))
            await servers.postgres.stop()
        try:
            await until(partial(says, log, "Unavailable"))
        finally:
            await servers.postgres.start()
        fresh = await asyncpg.connect(url)
        await until(partial(is_in_status, api, "A", "COMPLETED"))
    rollout = await read(api, "A")
    assert (rollout["failure"], (await pass_of(fresh, 1))["failures"]) == (None, 0)
    await assert_exact(fresh, 1, USERS, 10)
    await fresh.close()


async def test_connections_that_are_lost_again_and_again_are_no_failure_of_the_rollout(
    api: Api, sql: Sql, url: str, run_worker: RunWorker
) -> None:
    await store_users(sql, len(USERS))
    async with run_worker():
        async with held(url, in_third_chunk(1, 10)):
            await create_with(api, "A", percent=10)
            for _ in range(2 * MAX_FAILURES):  # each try makes a second attempt
                await until(partial(worker_waits, sql))
                await sql.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                    "WHERE application_name = 'segmentql worker' AND wait_event_type = 'Lock'"
                )
            await until(partial(worker_waits, sql))
            assert (await read(api, "A"))["status"] == "RUNNING"
            assert (await pass_of(sql, 1))["failures"] == 0
        await until(partial(is_in_status, api, "A", "COMPLETED"))
    await assert_exact(sql, 1, USERS, 10)


async def test_a_rollout_that_cannot_be_carried_out_has_failed_and_goes_on_once_that_is_mended(
    api: Api, sql: Sql, run_worker: RunWorker
) -> None:
    await store_users(sql, len(USERS))
    sample = sample_of(1, USERS, 10)
    refused = in_third_chunk(1, 10)
    await sql.execute(f"ALTER TABLE memberships ADD CONSTRAINT nobody CHECK (user_id <> {refused})")
    try:
        async with run_worker():
            await create_with(api, "A", percent=10)
            await until(partial(is_in_status, api, "A", "FAILED"))
            rollout = await read(api, "A")
            assert rollout["failure"] == "repeated internal errors; see the worker's log"
            assert rollout["usersSeen"] == 2 * CHUNK_USERS
            assert stage_statuses(rollout) == ["ACTIVE"]
            assert (await members(sql, 1)).keys() == {
                user_id for user_id in sample if user_id <= 2 * CHUNK_USERS
            }
            await sql.execute("ALTER TABLE memberships DROP CONSTRAINT nobody")
            await resume(api, "A")
            await until(partial(is_in_status, api, "A", "COMPLETED"))
    finally:
        await sql.execute("ALTER TABLE memberships DROP CONSTRAINT IF EXISTS nobody")
    assert (await read(api, "A"))["failure"] is None
    await assert_exact(sql, 1, USERS, 10)
