"""The actors record due leaves in this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import dramatiq
from dramatiq.brokers.stub import StubBroker

from segmentql.adapters.jobs import JobPublisher, Message, register_actors, worker_middleware
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.segments.jobs import RECORD_SEGMENT_LEAVES
from segmentql.settings import Settings
from segmentql.worker import ACTORS, Runtime
from tests.conftest import Sql
from tests.memberships.worker_helpers import is_recorded
from tests.timeline import (
    SECOND,
    add_membership,
    history_entries,
    history_inconsistencies,
    make_segment,
    mark_deleted,
)


@asynccontextmanager
async def drained(
    settings: Settings,
) -> AsyncIterator[Callable[[Sequence[Message]], Awaitable[None]]]:
    """Yield a worker on a stub broker, its publisher, and a function that awaits all jobs."""
    publisher = JobPublisher(settings.redis_url)
    runtime = Runtime(settings.model_copy(update={"scheduler": "off"}), publisher)
    broker = StubBroker(middleware=[*worker_middleware(), runtime])
    register_actors(broker, ACTORS, runtime.database)
    worker = dramatiq.Worker(broker, worker_timeout=20, worker_threads=4)

    def drain(messages: Sequence[Message]) -> None:
        for message in messages:
            broker.get_actor(message.job.name).send(*message.args)
        for queue in {message.job.queue for message in messages}:
            broker.join(queue, timeout=30_000)
        worker.join()

    await asyncio.to_thread(worker.start)
    try:
        yield lambda messages: asyncio.to_thread(drain, messages)
    finally:
        await asyncio.to_thread(worker.stop)
        publisher.close()


async def test_actors_record_due_leaves_once_for_repeated_messages(
    settings: Settings, sql: Sql
) -> None:
    alive, deleted = await make_segment(sql, "A"), await make_segment(sql, "B")
    for user_id in (1, 2, 3):
        await add_membership(sql, user_id, alive, ends_in=-SECOND)
        await add_membership(sql, user_id, deleted)
    await add_membership(sql, 4, alive)
    await mark_deleted(sql, deleted)
    async with drained(settings) as drain:
        await drain(
            [Message(EXPIRE_DUE_MEMBERSHIPS), Message(RECORD_SEGMENT_LEAVES, (deleted,))] * 5
            + [Message(RECORD_SEGMENT_LEAVES, (alive,)), Message(RECORD_SEGMENT_LEAVES, (404,))]
        )
    assert [row["user_id"] for row in await sql.fetch("SELECT * FROM memberships")] == [4]
    leaves = [
        (e.user_id, e.segment_id, e.cause)
        for e in await history_entries(sql)
        if e.operation == "LEFT"
    ]
    assert sorted(leaves) == sorted(
        [(user_id, alive, "TTL") for user_id in (1, 2, 3)]
        + [(user_id, deleted, "SEGMENT_DELETED") for user_id in (1, 2, 3)]
    )
    assert await history_inconsistencies(sql) == {}


async def test_actor_that_loses_its_connection_finishes_on_another(
    settings: Settings, sql: Sql
) -> None:
    segment_id = await make_segment(sql, "A")
    async with drained(settings) as drain:
        await add_membership(sql, 1, segment_id, ends_in=-SECOND)
        await drain([Message(EXPIRE_DUE_MEMBERSHIPS)])
        killed = await sql.fetch(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE application_name = 'segmentql worker'"
        )
        assert len(killed) >= 1
        await add_membership(sql, 2, segment_id, ends_in=-SECOND)
        await drain([Message(EXPIRE_DUE_MEMBERSHIPS)])
    assert await is_recorded(sql)
