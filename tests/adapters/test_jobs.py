"""Messages are sent without waiting, in bounded number, and lost messages are counted."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from redis import Redis

from segmentql import metrics
from segmentql.adapters.broker import REDIS_TIMEOUT_SECONDS
from segmentql.adapters.jobs import (
    CLOSE_SECONDS,
    MAX_UNSENT,
    Job,
    JobActor,
    JobPublisher,
    Message,
    register_actors,
    worker_middleware,
)
from segmentql.local import LocalServers
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.segments.jobs import RECORD_SEGMENT_LEAVES
from segmentql.settings import Settings
from tests.conftest import Sql, until

QUEUE = f"dramatiq:{EXPIRE_DUE_MEMBERSHIPS.queue}"


def lost(job: Job) -> float:
    (family,) = metrics.MESSAGES_LOST.labels(job.name).collect()
    return next(s.value for s in family.samples if s.name.endswith("_total"))


def runs(job: Job, outcome: str) -> float:
    (family,) = metrics.ACTOR_RUNS.labels(job.name, outcome).collect()
    return next(s.value for s in family.samples if s.name.endswith("_total"))


@contextmanager
def suspended(servers: LocalServers) -> Iterator[None]:
    """Suspend Redis in the block: it accepts connections and does not respond."""
    pid = servers.redis.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_messages_are_sent_to_their_queues(settings: Settings, sql: Sql) -> None:
    publisher = JobPublisher(settings.redis_url)
    publisher.publish(
        [
            Message(EXPIRE_DUE_MEMBERSHIPS),
            Message(EXPIRE_DUE_MEMBERSHIPS, delay_seconds=3),
            Message(RECORD_SEGMENT_LEAVES, (7,)),
        ]
    )
    await asyncio.to_thread(publisher.close)
    redis = Redis.from_url(settings.redis_url)
    assert {
        key: redis.llen(key) for key in redis.keys("dramatiq:*") if redis.type(key) == b"list"
    } == {
        b"dramatiq:expiry": 1,
        b"dramatiq:expiry.DQ": 1,
        b"dramatiq:cleanup": 1,
    }
    redis.close()


@pytest.mark.slow
async def test_sending_does_not_wait_for_hanging_redis_and_is_bounded(
    servers: LocalServers, settings: Settings, sql: Sql
) -> None:
    publisher = JobPublisher(settings.redis_url)
    redis = Redis.from_url(settings.redis_url)
    before = lost(EXPIRE_DUE_MEMBERSHIPS)
    with suspended(servers):
        started = time.monotonic()
        publisher.publish([Message(EXPIRE_DUE_MEMBERSHIPS)] * (MAX_UNSENT + 500))
        assert time.monotonic() - started < REDIS_TIMEOUT_SECONDS / 2
        assert lost(EXPIRE_DUE_MEMBERSHIPS) - before == 500

    async def all_sent() -> bool:
        return redis.llen(QUEUE) == MAX_UNSENT

    await until(all_sent)
    publisher.publish([Message(EXPIRE_DUE_MEMBERSHIPS)])
    await asyncio.to_thread(publisher.close)
    assert redis.llen(QUEUE) == MAX_UNSENT + 1
    assert lost(EXPIRE_DUE_MEMBERSHIPS) - before == 500
    redis.close()


@pytest.mark.slow
async def test_exit_waits_a_limited_time_for_hanging_redis(
    servers: LocalServers, settings: Settings, sql: Sql
) -> None:
    publisher = JobPublisher(settings.redis_url)
    before = lost(EXPIRE_DUE_MEMBERSHIPS)
    with suspended(servers):
        publisher.publish([Message(EXPIRE_DUE_MEMBERSHIPS)] * 100)
        started = time.monotonic()
        await asyncio.to_thread(publisher.close)
        assert time.monotonic() - started < CLOSE_SECONDS + REDIS_TIMEOUT_SECONDS + 1
    assert lost(EXPIRE_DUE_MEMBERSHIPS) - before == 100


@pytest.mark.slow
async def test_messages_lost_without_redis_are_counted(
    servers: LocalServers, settings: Settings, sql: Sql
) -> None:
    publisher = JobPublisher(settings.redis_url)
    before = lost(EXPIRE_DUE_MEMBERSHIPS)

    async def counted() -> bool:
        return lost(EXPIRE_DUE_MEMBERSHIPS) - before == 3

    await servers.redis.stop()
    try:
        publisher.publish([Message(EXPIRE_DUE_MEMBERSHIPS)] * 3)
        await until(counted)
    finally:
        await servers.redis.start()
    publisher.publish([Message(EXPIRE_DUE_MEMBERSHIPS)])
    await asyncio.to_thread(publisher.close)
    with Redis.from_url(settings.redis_url) as redis:
        assert redis.llen(QUEUE) == 1
    assert lost(EXPIRE_DUE_MEMBERSHIPS) - before == 3


async def test_actor_runs_with_its_context_and_is_retried() -> None:
    calls: list[tuple[object, ...]] = []

    async def work(context: object, *args: int) -> None:
        calls.append((context, *args))
        if args == (2,) or len(calls) == 1:
            raise KeyError("not now")

    job = Job(
        "test_jobs", queue="tests", time_limit_seconds=5, max_retries=2, max_backoff_seconds=0.3
    )
    broker = StubBroker(middleware=worker_middleware())
    register_actors(broker, [JobActor(job, work)], lambda: "the context")
    before = runs(job, "done"), runs(job, "failed")
    worker = dramatiq.Worker(broker, worker_timeout=20, worker_threads=1)

    def drain(*args: int) -> None:
        broker.get_actor(job.name).send(*args)
        broker.join(job.queue, fail_fast=False, timeout=20_000)
        worker.join()

    worker.start()
    try:
        await asyncio.to_thread(drain, 1)
        assert calls == [("the context", 1)] * 2
        await asyncio.to_thread(drain, 2)
        assert calls[2:] == [("the context", 2)] * 3
    finally:
        await asyncio.to_thread(worker.stop)
    assert (runs(job, "done") - before[0], runs(job, "failed") - before[1]) == (1, 4)
    assert len(broker.dead_letters) == 1


@pytest.mark.parametrize("job", [EXPIRE_DUE_MEMBERSHIPS, RECORD_SEGMENT_LEAVES])
def test_every_job_has_limits(job: Job) -> None:
    assert 1 <= job.max_retries <= 10
    assert 1 <= job.time_limit_seconds <= 600
