"""The number of statements does not grow with consumers, rows or filters."""

import asyncio

import pytest

from segmentql.adapters.database import Database
from segmentql.feed.reader import FeedReader
from segmentql.feed.records import ChangeFilter
from segmentql.feed.service import MAX_SCANNED_ROWS
from tests.conftest import Api, Sql, recorded_statements
from tests.feed.conftest import LIMIT
from tests.feed.consumers import open_stream
from tests.feed.queries import changes
from tests.history.writers import join
from tests.query_plans import captured_statements, scanned_rows
from tests.timeline import add_members, make_segment

ROUNDS = 5


async def _statements(database: Database, sql: Sql, segment_id: int, consumers: int) -> int:
    """Return the statements that read pages while consumers wait and get `ROUNDS` changes each."""
    reader = FeedReader(database, LIMIT)
    streams = [await open_stream(reader, None) for _ in range(consumers)]
    for stream in streams:
        await anext(stream)
    with recorded_statements() as statements:
        for _ in range(ROUNDS):
            waiting = [asyncio.create_task(anext(stream)) for stream in streams]
            await asyncio.sleep(0)
            user_id = 1 + await sql.fetchval("SELECT count(*) FROM memberships")
            await join(sql, user_id, segment_id)
            for batch in await asyncio.gather(*waiting):
                assert [change.entry.user_id for change in batch.changes] == [user_id]
    for stream in streams:
        await stream.aclose()
    await reader.close()
    return sum("scanned" in statement for statement in statements)


async def test_hundred_consumers_share_the_statements_of_one(
    database: Database, sql: Sql, segment_id: int
) -> None:
    await sql.execute("INSERT INTO users SELECT n, now() FROM generate_series(10, 20) AS n")
    one = await _statements(database, sql, segment_id, 1)
    hundred = await _statements(database, sql, segment_id, 100)
    assert (one, hundred) == (ROUNDS, ROUNDS)


async def test_idle_consumers_poll_together(reader: FeedReader, sql: Sql, segment_id: int) -> None:
    """A hundred consumers wait for a second, in which one poll of 75 ms runs at a time."""
    streams = [await open_stream(reader, None) for _ in range(100)]
    for stream in streams:
        await anext(stream)
    waiting = [asyncio.create_task(anext(stream)) for stream in streams]
    with recorded_statements() as statements:
        await asyncio.sleep(1)
    assert 1 < len(statements) < 25
    await join(sql, 1, segment_id)
    await asyncio.gather(*waiting)
    for stream in streams:
        await stream.aclose()


@pytest.mark.parametrize("members", [1, 100])
async def test_page_of_any_size_is_read_by_one_statement(
    feed_api: Api, sql: Sql, members: int
) -> None:
    await add_members(sql, await make_segment(sql, "A"), members)
    await changes(feed_api)
    with recorded_statements() as statements:
        batch = await changes(feed_api, start="EARLIEST", first=1000)
    assert len(batch["events"]) == members
    # Unrecorded leaves, the step to the settled row, the beginning of history, the page.
    assert len(statements) == 4


async def test_filter_that_matches_nothing_reads_a_bounded_number_of_rows(
    reader: FeedReader, sql: Sql
) -> None:
    """It stores 25,000 rows, which takes a second."""
    await add_members(sql, await make_segment(sql, "A"), 25_000)
    await sql.execute("VACUUM ANALYZE history")
    stream = await open_stream(reader)
    await anext(stream)
    unknown = ChangeFilter(slugs=frozenset({"UNKNOWN"}))
    cursor = (await anext(stream)).changes[0].cursor
    await stream.aclose()
    pages = []
    while True:
        with captured_statements() as statements:
            batch = await reader.read(cursor, change_filter=unknown, max_changes=10)
        assert batch.changes == []
        rows = [await scanned_rows(sql, *each) for each in statements]
        assert sum(rows) < 1.1 * MAX_SCANNED_ROWS
        pages.append(batch.cursor.position - cursor.position)
        cursor = batch.cursor
        if batch.cursor.position == await sql.fetchval("SELECT max(position) FROM history"):
            break
    assert pages[:2] == [MAX_SCANNED_ROWS] * 2
    assert len(pages) > 2


async def test_consumer_far_behind_reads_only_its_page(reader: FeedReader, sql: Sql) -> None:
    await add_members(sql, await make_segment(sql, "A"), 25_000)
    await sql.execute("VACUUM ANALYZE history")
    stream = await open_stream(reader, max_changes=10)
    await anext(stream)
    with captured_statements() as statements:
        batch = await anext(stream)
    assert len(batch.changes) == 10
    pages = [each for each in statements if "scanned" in each[0]]
    assert [await scanned_rows(sql, *each) <= 210 for each in pages] == [True]
    await stream.aclose()
