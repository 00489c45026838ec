"""A stream begins with an empty batch, reads on demand, and cleans up when it is closed."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from sqlalchemy import text

from graphql import ExecutionResult, parse, subscribe
from segmentql.adapters.concurrency import ConcurrencyLimit
from segmentql.adapters.database import Database
from segmentql.errors import ConcurrencyLimitExceeded
from segmentql.feed.reader import MAX_PAGE_READS, FeedReader
from segmentql.feed.records import ChangeFilter
from segmentql.graphql.context import Context
from segmentql.history.settled import BEFORE_FIRST_ROW
from segmentql.settings import Settings
from segmentql.tables import Operation
from tests.conftest import Sql, recorded_statements, until
from tests.feed.consumers import open_stream, row_of
from tests.graphql.executor_helpers import CORE, make_context
from tests.history.test_tracker import polling_has_ended
from tests.history.writers import join, stored_rows
from tests.timeline import add_members

SUBSCRIPTION = """
subscription($after: String, $filter: FeedFilter, $batch: Int) {
  changes(after: $after, filter: $filter, batch: $batch) {
    events { __typename cursor ... on MembershipEvent { entry { userId segment { slug } } } }
    cursor caughtUp
  }
}
"""


async def test_first_batch_is_empty_and_the_others_have_up_to_the_maximum(
    reader: FeedReader, sql: Sql, segment_id: int
) -> None:
    for user_id in range(1, 6):
        await join(sql, user_id, segment_id)
    stream = await open_stream(reader, max_changes=2)
    first = await anext(stream)
    assert (first.changes, first.cursor, first.caught_up) == ([], BEFORE_FIRST_ROW, False)
    batches = [await anext(stream) for _ in range(3)]
    assert [len(batch.changes) for batch in batches] == [2, 2, 1]
    assert [batch.caught_up for batch in batches] == [False, False, True]
    rows = [row_of(change) for batch in batches for change in batch.changes]
    assert rows == await stored_rows(sql)
    await stream.aclose()


async def test_stream_reads_only_when_the_next_batch_is_requested(
    reader: FeedReader, sql: Sql, segment_id: int
) -> None:
    await add_members(sql, segment_id, 100)
    stream = await open_stream(reader, max_changes=1)
    await anext(stream)
    await anext(stream)
    with recorded_statements() as statements:
        await asyncio.sleep(0.2)
    assert [statement for statement in statements if "scanned" in statement] == []
    await stream.aclose()


async def test_slow_consumer_does_not_delay_others_and_gets_everything(
    reader: FeedReader, sql: Sql, segment_id: int
) -> None:
    slow, fast = await open_stream(reader, None), await open_stream(reader, None)
    for stream in (slow, fast):
        await anext(stream)
    rows = []
    for user_id in range(1, 10):
        await join(sql, user_id, segment_id)
        rows += [row_of(change) for change in (await anext(fast)).changes]
    assert rows == await stored_rows(sql)
    assert [row_of(change) for change in (await anext(slow)).changes] == rows
    for stream in (slow, fast):
        await stream.aclose()


async def test_filter_matches_while_the_stream_waits(
    reader: FeedReader, sql: Sql, segment_id: int
) -> None:
    change_filter = ChangeFilter(operations=frozenset({Operation.LEFT}))
    stream = await open_stream(reader, change_filter=change_filter)
    await anext(stream)
    waiting = asyncio.create_task(anext(stream))
    await join(sql, 1, segment_id)
    await join(sql, 2, segment_id)
    await sql.execute("DELETE FROM memberships WHERE user_id = 1")
    batch = await waiting
    assert [change.entry.user_id for change in batch.changes] == [1]
    await stream.aclose()


async def test_shutdown_ends_a_waiting_stream(reader: FeedReader, sql: Sql) -> None:
    stopping = asyncio.Event()
    stream = await open_stream(reader, stopping=stopping)
    assert (await anext(stream)).cursor == BEFORE_FIRST_ROW
    waiting = asyncio.create_task(anext(stream, None))
    await asyncio.sleep(0)
    stopping.set()
    assert await waiting is None
    await stream.aclose()


async def test_closed_and_forgotten_streams_are_not_counted(reader: FeedReader, sql: Sql) -> None:
    streams = [await open_stream(reader) for _ in range(3)]
    assert reader.consumers.count == 3
    for _ in range(2):
        await streams[0].aclose()
    assert reader.consumers.count == 2
    waiting = asyncio.create_task(_second(streams[1]))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await streams[1].aclose()
    del waiting, streams
    await asyncio.sleep(0)
    assert reader.consumers.count == 0
    await until(polling_has_ended)


async def test_stream_that_another_thread_collects_is_uncounted_on_the_event_loop(
    reader: FeedReader, sql: Sql
) -> None:
    streams = [await open_stream(reader)]
    thread = threading.Thread(target=streams.clear)
    thread.start()
    thread.join()
    assert reader.consumers.count == 1  # only the event loop may change it
    await asyncio.sleep(0)
    assert reader.consumers.count == 0


async def test_streams_that_are_behind_leave_connections_for_other_reads(
    database: Database, reader: FeedReader, sql: Sql, segment_id: int
) -> None:
    await join(sql, 1, segment_id)
    await join(sql, 2, segment_id)
    streams = [await open_stream(reader) for _ in range(20)]  # before the first row
    for stream in streams:
        await anext(stream)
    async with sql.transaction():
        await sql.execute("LOCK TABLE history")  # a page takes until the end of this transaction
        waiting = [asyncio.create_task(anext(stream)) for stream in streams]

        async def are_reading() -> bool:
            return database.pool_in_use() >= MAX_PAGE_READS

        await until(are_reading)
        assert await database.read_one(lambda session: session.scalar(text("SELECT 1"))) == 1
        assert database.pool_in_use() == MAX_PAGE_READS
    for batch in await asyncio.gather(*waiting):
        assert [change.entry.user_id for change in batch.changes] == [1, 2]
    for stream in streams:
        await stream.aclose()


async def _second(stream: Any) -> None:
    await anext(stream)
    await anext(stream)


async def test_streams_are_limited_per_key_and_per_process(database: Database, sql: Sql) -> None:
    reader = FeedReader(database, ConcurrencyLimit(per_process=3, per_key=2))
    streams = [await open_stream(reader, key_id="ada") for _ in range(2)]
    with pytest.raises(ConcurrencyLimitExceeded) as per_key:
        await open_stream(reader, key_id="ada")
    streams.append(await open_stream(reader, key_id="eve"))
    with pytest.raises(ConcurrencyLimitExceeded) as per_process:
        await open_stream(reader, key_id="eve")
    assert [(each.value.limit, each.value.is_per_key) for each in (per_key, per_process)] == [
        (2, True),
        (3, False),
    ]
    await streams.pop().aclose()
    streams.append(await open_stream(reader, key_id="eve"))
    for stream in streams:
        await stream.aclose()
    assert reader.consumers.count == 0
    await reader.close()


@pytest.fixture
async def context(database: Database, settings: Settings, reader: FeedReader) -> Context:
    made = make_context(database, settings)
    made.features = {FeedReader: reader}
    return made


async def _subscribe(context: Context, **variables: Any) -> Any:
    result = subscribe(CORE, parse(SUBSCRIPTION), context_value=context, variable_values=variables)
    return await result if asyncio.iscoroutine(result) else result


async def _next(events: "AsyncGenerator[ExecutionResult, None]") -> Any:
    result = await anext(events)
    assert result.errors is None
    return (result.data or {})["changes"]


async def test_subscription_returns_the_batches_of_a_stream(
    context: Context, reader: FeedReader, sql: Sql, segment_id: int
) -> None:
    events = await _subscribe(context, batch=1)
    assert isinstance(events, AsyncGenerator)
    first = await _next(events)
    assert (first["events"], first["caughtUp"]) == ([], True)
    await join(sql, 1, segment_id)
    await join(sql, 2, segment_id)
    for user_id in ("1", "2"):
        (event,) = (await _next(events))["events"]
        assert event["__typename"] == "MembershipEvent"
        assert event["entry"] == {"userId": user_id, "segment": {"slug": "A"}}
    assert reader.consumers.count == 1
    await events.aclose()
    assert reader.consumers.count == 0
    resumed = await _subscribe(context, after=first["cursor"])
    await _next(resumed)
    assert len((await _next(resumed))["events"]) == 2
    await resumed.aclose()


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        ({"after": "chg_1"}, "BAD_REQUEST"),
        ({"after": "chg_MTowMDAwMDAwMDAwMDAwMDAw"}, "FEED_RESET"),
        ({"batch": 0}, "BAD_REQUEST"),
        ({"batch": 1001}, "LIMIT_EXCEEDED"),
        ({"filter": {"slugs": []}}, "BAD_REQUEST"),
    ],
)
async def test_invalid_subscription_fails_at_its_start(
    context: Context, reader: FeedReader, sql: Sql, variables: dict[str, Any], code: str
) -> None:
    result = await _subscribe(context, **variables)
    assert isinstance(result, ExecutionResult)
    assert result.errors is not None
    assert [(error.extensions or {})["code"] for error in result.errors] == [code]
    assert reader.consumers.count == 0
