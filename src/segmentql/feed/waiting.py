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
    max_changes: int,
    change_filter: ChangeFilter,
    wait_seconds: int,
) -> ChangeBatchRecord:
    """Read the changes after a cursor; wait for the first one if there is none.

    Unrecorded leaves are recorded before, up to a bound. While the request waits, it holds no
    connection and its deadline is paused. The wait ends when the process stops or the client
    disconnects. After the wait, the API key is checked again.

    Args:
        context: The context of the request.
        after: The cursor, if any.
        start: The position if there is no cursor.
        max_changes: The maximum number of changes.
        change_filter: The filter.
        wait_seconds: The maximum time to wait.

    Raises:
        CursorExpired, FeedReset: The consumer cannot continue after its cursor.
        ConcurrencyLimitExceeded: There are too many consumers that wait.
        Unauthenticated: The API key was revoked during the wait.
        Unavailable, TimedOut: The database cannot be read.
    """
    context.check_database_error()
    context.primary = True  # a replica may not have the rows of a change yet
    reader = context.feature(FeedReader)
    await reader.record_leaves()
    cursor = await reader.resolve_start(after, start)
    batch = await reader.read(cursor, change_filter=change_filter, max_changes=max_changes)
    if wait_seconds and not batch.changes:
        return await _wait(
            context,
            reader,
            batch,
            change_filter=change_filter,
            max_changes=max_changes,
            wait_seconds=wait_seconds,
        )
    return batch


async def _wait(
    context: Context,
    reader: FeedReader,
    batch: ChangeBatchRecord,
    *,
    change_filter: ChangeFilter,
    max_changes: int,
    wait_seconds: int,
) -> ChangeBatchRecord:
    """Return the next batch that has changes, or the last batch before the end of the time."""
    ends_at = time.monotonic() + wait_seconds
    client = context.client
    ends = [context.stopping, *([client.disconnected()] if client else [])]
    with reader.consumers.counted(context.principal.key_id, "waiting"):
        while not batch.changes and not any(end.is_set() for end in ends):
            remaining = ends_at - time.monotonic()
            if remaining <= 0:
                break
            async with context.waiting():
                await reader.wait_beyond(batch.cursor, *ends, wait_seconds=remaining)
            batch = await reader.read(
                batch.cursor, change_filter=change_filter, max_changes=max_changes
            )
    if client:
        await client.check_key()
    return batch
