"""A consumer whose change the database has lost must start again."""

import asyncio

import pytest

from segmentql.errors import CursorExpired, FeedReset
from segmentql.feed.reader import FeedReader
from segmentql.feed.records import NO_FILTER, FeedStart
from segmentql.history.settled import BEFORE_FIRST_ROW, HistoryCursor
from tests.conftest import Api, Sql
from tests.feed.conftest import LIMIT
from tests.feed.consumers import open_stream
from tests.feed.queries import CHANGES, all_changes, changes
from tests.history.writers import join

LOSE = """
SET session_replication_role = replica;
DELETE FROM history WHERE user_id > 1;
DELETE FROM memberships WHERE user_id > 1;
SET session_replication_role = DEFAULT;
SELECT setval('history_position_seq', max(position)) FROM history;
"""
"""Loses the changes of the users above 1, as the restore of a backup does."""


async def test_lost_change_resets_the_feed(feed_api: Api, sql: Sql, segment_id: int) -> None:
    """Also if as many changes as were lost have the same positions now, and in the window."""
    for user_id in (1, 2, 3):
        await join(sql, user_id, segment_id)
    events = (await changes(feed_api, start="EARLIEST"))["events"]
    await sql.execute(LOSE)
    for rewritten in range(3):
        error = await feed_api.error(CHANGES, after=events[2]["cursor"])
        assert error["extensions"]["code"] == "FEED_RESET"
        assert len(await all_changes(feed_api, events[0]["cursor"])) == rewritten
        await join(sql, 4 + rewritten, segment_id)
    assert len((await changes(feed_api, start="EARLIEST"))["events"]) == 4


async def test_lost_change_ends_a_waiting_stream(
    reader: FeedReader, sql: Sql, segment_id: int
) -> None:
    for user_id in (1, 2, 3):
        await join(sql, user_id, segment_id)
    stream = await open_stream(reader)
    await anext(stream)
    assert len((await anext(stream)).changes) == 3
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    await sql.execute(LOSE)
    with pytest.raises(FeedReset):
        await waiting
    assert reader.consumers.count == 0


async def test_dropped_change_expires_the_cursor(
    reader: FeedReader, sql: Sql, segment_id: int
) -> None:
    for user_id in (1, 2):
        await join(sql, user_id, segment_id)
    cursor = await reader.resolve_start(None, FeedStart.EARLIEST)
    first = (await reader.read(cursor, change_filter=NO_FILTER, max_changes=1)).cursor
    await sql.execute(
        """
        SET session_replication_role = replica;
        DELETE FROM history WHERE user_id = 1;
        SET session_replication_role = DEFAULT;
        """
    )
    fresh = FeedReader(reader._database, LIMIT)
    with pytest.raises(CursorExpired):
        await fresh.resolve_start(first, FeedStart.NOW)
    assert await fresh.resolve_start(BEFORE_FIRST_ROW, FeedStart.NOW) == BEFORE_FIRST_ROW
    await fresh.close()


async def test_cursor_ahead_of_this_process_is_valid_if_its_row_exists(
    reader: FeedReader, sql: Sql, segment_id: int
) -> None:
    """Another process may have settled rows that this one has not."""
    await reader.resolve_start(None, FeedStart.NOW)
    await join(sql, 1, segment_id)
    row = await sql.fetchrow(
        "SELECT position, membership_id, operation::text, recorded_at FROM history"
    )
    assert row is not None
    ahead = HistoryCursor.of_row(*row.values())
    batch = await reader.read(ahead, change_filter=NO_FILTER, max_changes=1)
    assert (batch.changes, batch.cursor) == ([], ahead)
    unknown = HistoryCursor(ahead.position + 1, ahead.fingerprint)
    with pytest.raises(FeedReset):
        await reader.read(unknown, change_filter=NO_FILTER, max_changes=1)
