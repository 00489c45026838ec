"""Reads of the change feed for a request, which may wait for changes."""

import time

from segmentql.feed.reader import FeedReader
from segmentql.feed.records import ChangeBatchRecord, ChangeFilter, FeedStart
from segmentql.graphql.context import Context
from segmentql.history.settled import HistoryCursor


async def read_changes(
    context: Context,
    *,
    after: HistoryCursor | None,
    start: FeedStart,
    rows: int,
    wanted: ChangeFilter,
    seconds: int,
) -> ChangeBatchRecord:
    """Read the changes after a cursor; wait for the first one if there is none.

    What is due is recorded before, up to a bound. While the request waits, it holds no connection,
    its deadline is paused, and the wait ends when the process stops.

    Args:
        context: The context of the request.
        after: The cursor, if any.
        start: The position if there is no cursor.
        rows: The maximum number of changes.
        wanted: The filter.
        seconds: The maximum time to wait.

    Raises:
        CursorExpired, FeedReset: The consumer cannot continue after its cursor.
        FeedConsumersExceeded: There are too many consumers that wait.
        Unavailable, TimedOut: The database cannot be read.
    """
    context.check_database_error()
    reader = context.feature(FeedReader)
    await reader.record_due()
    cursor = await reader.start(after, start)
    batch = await reader.read(cursor, wanted=wanted, rows=rows)
    if seconds and not batch.changes:
        return await _wait(context, reader, batch, wanted=wanted, rows=rows, seconds=seconds)
    return batch


async def _wait(
    context: Context,
    reader: FeedReader,
    batch: ChangeBatchRecord,
    *,
    wanted: ChangeFilter,
    rows: int,
    seconds: int,
) -> ChangeBatchRecord:
    """Return the next batch that has changes, or the last batch before the end of the time."""
    ends_at = time.monotonic() + seconds
    with reader.consumers.counted(context.principal.key_id, "waiting"):
        while not batch.changes and not context.stopping.is_set():
            remaining = ends_at - time.monotonic()
            if remaining <= 0:
                break
            async with context.waiting():
                await reader.wait_beyond(batch.cursor, context.stopping, seconds=remaining)
            batch = await reader.read(batch.cursor, wanted=wanted, rows=rows)
    return batch
