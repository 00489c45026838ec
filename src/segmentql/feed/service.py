"""SQL of the change feed: pages of history in the order of recording, up to a settled row.

A page begins with the row of the cursor. So one statement reads the page and checks that the
database still has that row. The statement also compares the incarnation of the database: positions
of another incarnation have no meaning (decision 16).
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, TextClause, text

from segmentql.adapters.sessions import ReadSession
from segmentql.errors import CursorExpired, FeedReset
from segmentql.feed.records import NO_FILTER, ChangeFilter, ChangePage, ChangeRecord
from segmentql.history.records import HistoryEntryRecord
from segmentql.history.retention import DROPPED_POSITION
from segmentql.history.settled import (
    INCARNATION,
    CursorState,
    HistoryCursor,
    check_cursor,
)
from segmentql.history.tracker import SettledHead
from segmentql.segments.records import SegmentRecord
from segmentql.segments.rows import SEGMENT_COLUMNS, segment_record
from segmentql.tables import Cause, Operation

MAX_BATCH_CHANGES: Final = 1000
"""The maximum number of changes in a batch."""

MAX_SCANNED_ROWS: Final = 10_000
"""The maximum number of rows that one statement reads for a filter."""

_SCAN_SIZES: Final = (100, MAX_BATCH_CHANGES, MAX_SCANNED_ROWS)

# The limits of rows are constants: for a parameter, the planner assumes a tenth of the rows.
_PAGE: Final = f"""
WITH scanned AS MATERIALIZED (
    SELECT h.position, h.membership_id, h.user_id, h.segment_id, h.operation, h.at, h.recorded_at,
        h.cause, h.actor, h.import_id
    FROM history h
    WHERE h.position >= :after AND h.position <= :until
      AND (SELECT incarnation FROM (SELECT {INCARNATION}) AS server) = :incarnation
    ORDER BY h.position LIMIT {{scanned_rows}} + 1
), matching AS (
    SELECT h.position FROM scanned h JOIN segments s ON s.id = h.segment_id
    WHERE h.position > :after
      AND (CAST(:slugs AS text[]) IS NULL OR s.slug = ANY(:slugs))
      AND (CAST(:user_ids AS bigint[]) IS NULL OR h.user_id = ANY(:user_ids))
      AND (CAST(:operations AS operation[]) IS NULL OR h.operation = ANY(:operations))
    ORDER BY h.position LIMIT :max_changes
)
SELECT h.*, matching.position IS NOT NULL AS is_matching,
    {DROPPED_POSITION} AS dropped_position, {SEGMENT_COLUMNS}
FROM scanned h JOIN segments s ON s.id = h.segment_id LEFT JOIN matching USING (position)
WHERE matching.position IS NOT NULL
   OR h.position = (SELECT min(position) FROM scanned)
   OR h.position = (SELECT max(position) FROM scanned)
ORDER BY h.position
"""

_PAGES: Final = {size: text(_PAGE.format(scanned_rows=size)) for size in _SCAN_SIZES}


class HistoryMoved(Exception):
    """The database does not have the rows that the head and the cursor name.

    The server has restarted, or the history was reset. The caller must check its cursor.
    """


async def read_page(
    session: ReadSession,
    after: HistoryCursor,
    head: SettledHead,
    *,
    change_filter: ChangeFilter = NO_FILTER,
    max_changes: int,
) -> ChangePage:
    """Read the changes after a cursor, up to the head, in the order of recording.

    Args:
        session: A session on the primary.
        after: The cursor. The head must be after it.
        head: The newest settled row.
        change_filter: The filter. With a filter, the page may have no changes before the head.
        max_changes: The maximum number of changes, 1 to `MAX_BATCH_CHANGES`.

    Raises:
        HistoryMoved: The row of the cursor or of the head is missing or differs.
    """
    newest = head.newest_row
    values = {
        "after": after.position,
        "until": newest.position,
        "incarnation": head.last.incarnation,
        "slugs": _sorted(change_filter.slugs),
        "user_ids": _sorted(change_filter.user_ids),
        "operations": _sorted(change_filter.operations),
        "max_changes": max_changes,
    }
    found = (await session.execute(_statement(change_filter, max_changes), values)).all()
    cursors = [_cursor(row) for row in found]
    if not cursors or cursors[-1] == after:
        raise HistoryMoved  # the row of the head is missing
    dropped_position = found[0].dropped_position
    if after.position < dropped_position:
        raise HistoryMoved
    # The row at the dropped position may be missing.
    if after.position > dropped_position and cursors[0] != after:
        raise HistoryMoved
    segments: dict[int, SegmentRecord] = {}
    changes = [
        ChangeRecord(cursor, _entry_record(row, segments))
        for row, cursor in zip(found, cursors, strict=True)
        if row.is_matching
    ]
    last = changes[-1].cursor if len(changes) == max_changes else cursors[-1]
    if last.position == newest.position and last != newest:
        raise HistoryMoved
    return ChangePage(changes, last)


async def validate_cursor(session: ReadSession, cursor: HistoryCursor) -> None:
    """Check that a consumer can continue after a cursor.

    Raises:
        CursorExpired: The row was dropped with its partition.
        FeedReset: The database has lost history that the consumer has read.
    """
    state = await check_cursor(session, cursor)
    if state is CursorState.EXPIRED:
        raise CursorExpired
    if state is CursorState.RESET:
        raise FeedReset


def _statement(change_filter: ChangeFilter, max_changes: int) -> TextClause:
    """Return the statement that reads enough rows, and not many more."""
    needed = max_changes if change_filter == NO_FILTER else MAX_SCANNED_ROWS
    return _PAGES[next(size for size in _SCAN_SIZES if size >= needed)]


def _sorted(values: frozenset[Any] | None) -> Sequence[Any] | None:
    return None if values is None else sorted(values)


def _cursor(row: Row[Any]) -> HistoryCursor:
    return HistoryCursor.of_row(row.position, row.membership_id, row.operation, row.recorded_at)


def _entry_record(row: Row[Any], segments: dict[int, SegmentRecord]) -> HistoryEntryRecord:
    """Build the record of a row. Rows of one segment share its record."""
    segment = segments.get(row.segment_id)
    if segment is None:
        segment = segments[row.segment_id] = segment_record(row)
    return HistoryEntryRecord(
        membership_id=row.membership_id,
        user_id=row.user_id,
        segment=segment,
        operation=Operation(row.operation),
        at=row.at,
        recorded_at=row.recorded_at,
        cause=Cause(row.cause),
        actor=row.actor,
        import_id=row.import_id,
    )
