"""Every consumer gets every change once, in order, whatever the writers do."""

import asyncio
import random

import pytest

from segmentql.adapters.database import Database
from segmentql.feed.reader import FeedReader
from segmentql.feed.records import NO_FILTER, FeedStart
from segmentql.history.settled import BEFORE_FIRST_ROW
from tests.conftest import Sql, until
from tests.feed.conftest import LIMIT
from tests.feed.consumers import Consumer, open_stream, row_of
from tests.history.writers import Connect, RandomWriters, begin_join, join, stored_rows
from tests.timeline import make_segment, make_users

KILL_INTERVAL_SECONDS = 0.1


# The writers pause and are killed, so even the short form takes some seconds.
@pytest.mark.parametrize(
    ("writers", "transactions"), [(8, 30), pytest.param(16, 150, marks=pytest.mark.slow)]
)
async def test_ten_consumers_in_two_processes_get_every_change_once_in_order(
    database: Database, sql: Sql, connect: Connect, writers: int, transactions: int
) -> None:
    await make_users(sql, *RandomWriters.USERS)
    fleet = RandomWriters(connect, [await make_segment(sql, f"S{number}") for number in range(3)])
    readers = [FeedReader(database, LIMIT) for _ in range(2)]
    consumers = [Consumer(number) for number in range(10)]

    async def kill_backends() -> None:
        dice = random.Random(0)  # noqa: S311 - similar each time
        while True:
            await asyncio.sleep(KILL_INTERVAL_SECONDS)
            await fleet.kill_one(sql, dice)

    following = [
        asyncio.create_task(consumer.follow(readers[number % 2]))
        for number, consumer in enumerate(consumers)
    ]
    killing = asyncio.create_task(kill_backends())
    await asyncio.gather(*(fleet.run(number, transactions) for number in range(writers)))
    killing.cancel()
    await asyncio.wait([killing])  # it uses the connection until then
    rows = await stored_rows(sql)

    async def have_all() -> bool:
        assert not any(task.done() for task in following)
        return all(len(consumer.rows) >= len(rows) for consumer in consumers)

    await until(have_all)
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    for reader in readers:
        await reader.close()
    assert len(rows) > writers * transactions / 4
    for consumer in consumers:
        assert consumer.rows == rows
    assert sum(consumer.connections for consumer in consumers) > len(consumers)


async def test_open_transaction_delays_the_feed_and_loses_nothing(
    reader: FeedReader, sql: Sql, connect: Connect, segment_id: int
) -> None:
    stream = await open_stream(reader)
    await anext(stream)
    await join(sql, 1, segment_id)
    batch = await anext(stream)
    writer = await connect()
    await begin_join(writer, 2, segment_id)
    for user_id in (3, 4):
        await join(sql, user_id, segment_id)
    waiting = asyncio.create_task(anext(stream))
    for _ in range(5):
        # Each step of the tracker sees the open transaction.
        assert (
            await reader.read(batch.cursor, change_filter=NO_FILTER, max_changes=10)
        ).changes == []
        await reader.resolve_start(None, FeedStart.NOW)
    assert not waiting.done()
    await writer.execute("COMMIT")
    rest = await waiting
    assert [row_of(change) for change in batch.changes + rest.changes] == await stored_rows(sql)
    assert [change.entry.user_id for change in rest.changes] == [2, 3, 4]
    await stream.aclose()


async def test_rolled_back_changes_are_not_in_the_feed(
    reader: FeedReader, sql: Sql, connect: Connect, segment_id: int
) -> None:
    writer = await connect()
    await begin_join(writer, 1, segment_id)
    await join(sql, 2, segment_id)
    await writer.execute("ROLLBACK")
    await reader.resolve_start(None, FeedStart.NOW)
    batch = await reader.read(BEFORE_FIRST_ROW, change_filter=NO_FILTER, max_changes=10)
    assert [change.entry.user_id for change in batch.changes] == [2]
