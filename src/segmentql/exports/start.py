"""The time and the cursor of a new export.

A consumer loads the file of an export, and then applies the changes after the export's cursor. It
ends with the current members. That is true under two conditions:

1. *No change is missing in both.* Each row of history that the file does not show has a position
   after the cursor. A row is absent from the file because its transaction was not committed when
   the worker read the members, or because its `at` is later than the export's time.
2. *The changes of each user come in order.* They do, because positions follow `at` for each user
   and segment. So rows after the cursor may also be in the file: the consumer applies them again,
   and the last change of the user decides. The cursor may therefore always be earlier.

The cursor is the newest row that fulfils these rules:

- It is settled (see `history/settled.py`) before the export is created. All rows up to a settled
  row are committed then, so the worker, which reads later, sees them. Rows that are not committed
  have later positions. This is the first half of condition 1.
- It is before every row of the segment with a later `at` than the export's time. This is the second
  half. The smallest of these positions is read, not the position of the row with the smallest `at`,
  because the order of positions is the order of recording: a leave by TTL gets its position when a
  worker records it, with an earlier `at`. Such a leave is after rows with a later `at`, and the
  cursor is then before both. All rows up to a settled row are visible, so the smallest position up
  to it is known. Rows with a later `at` that appear afterwards are after the settled row.

A leave by TTL that is not recorded yet has no row. If it ended by the time of the export, the file
does not have the user, and the consumer later applies a leave of a user that it does not have. If
it ended later, the file has the user, and the row will come after the cursor.

If transactions are pending for longer than `SETTLE_SECONDS`, the cursor is taken from the position
up to which workers have summed up history. It was settled when they did so. It is earlier by as
much as the oldest pending transaction is old, or more if no worker runs.

To find the smallest position quickly, months after the month of the export's time count with the
rows of all segments: each partition of history has an index on positions. The cursor is then
earlier than necessary, at most by the other segments' rows of the time since.
"""

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.errors import HistoryDropped, InvalidInput, MutationRejected, SegmentNotFound
from segmentql.exports.records import ExportStart
from segmentql.history.retention import EARLIEST_AT, read_dropped_position
from segmentql.history.settled import HistoryCursor, first_cursor, wait_for_settled_row

SETTLE_SECONDS: Final = 1
"""The maximum time to wait for transactions that are pending."""

EARLIEST_TIME: Final = datetime(1, 1, 1, microsecond=1, tzinfo=UTC)
"""Earlier than every segment. asyncpg sends the minimum of `datetime` as `-infinity`."""

_SEGMENT_AND_TIME = text(f"""
SELECT s.id AS segment_id, coalesce(CAST(:as_of AS timestamptz), now) AS as_of,
    coalesce(CAST(:as_of AS timestamptz) > now, false) AS is_in_the_future,
    coalesce(CAST(:as_of AS timestamptz) < {EARLIEST_AT}, false) AS is_dropped,
    {EARLIEST_AT} AS earliest_at
FROM (SELECT clock_timestamp() AS now OFFSET 0) AS moment
LEFT JOIN segments s ON s.slug = :slug AND s.deleted_at IS NULL
""")

_SUMMED_UP_POSITION = text("SELECT position FROM member_count_rollup")

_FIRST_LATER_POSITION = text("""
SELECT least(
    (SELECT min(position) FROM history
     WHERE segment_id = :segment_id AND at > :as_of AND at < :next_month),
    (SELECT min(position) FROM history WHERE at >= :next_month))
""")

_NEWEST_ROW = text("""
SELECT position, membership_id, operation, recorded_at FROM history
WHERE position <= :position ORDER BY position DESC LIMIT 1
""")


async def read_start(database: Database, slug: str, as_of: datetime | None) -> ExportStart:
    """Return the start of an export of the live segment with the slug.

    Args:
        database: The database. No session is open while this waits.
        slug: The slug.
        as_of: The time of the members; None for now, by the database's clock.

    Raises:
        MutationRejected: the segment does not exist, or the time is in the future or before the
            beginning of history.
        Unavailable, TimedOut: the database cannot be read.
    """
    settled = await wait_for_settled_row(database, seconds=SETTLE_SECONDS)
    async with database.read() as session:
        values = {"slug": slug, "as_of": as_of and max(as_of, EARLIEST_TIME)}
        row = (await session.execute(_SEGMENT_AND_TIME, values)).one()
        if row.segment_id is None:
            raise MutationRejected(SegmentNotFound(("slug",), slugs=(slug,)))
        if row.is_in_the_future:
            raise MutationRejected(
                InvalidInput(("asOf",), "the time is in the future", "a time up to now")
            )
        if row.is_dropped:
            allowed = HistoryDropped(row.earliest_at).allowed
            raise MutationRejected(InvalidInput(("asOf",), "older history was dropped", allowed))
        position = settled.position if settled else await session.scalar(_SUMMED_UP_POSITION)
        cursor = await _cursor(session, row.segment_id, row.as_of, settled_position=position)
    return ExportStart(row.segment_id, slug, row.as_of, cursor)


async def _cursor(
    session: ReadSession, segment_id: int, as_of: datetime, *, settled_position: int
) -> HistoryCursor:
    """Return the newest settled row before every row of the segment with a later `at`."""
    values = {"segment_id": segment_id, "as_of": as_of, "next_month": _next_month(as_of)}
    later = await session.scalar(_FIRST_LATER_POSITION, values)
    position = settled_position if later is None else min(settled_position, later - 1)
    row = (await session.execute(_NEWEST_ROW, {"position": position})).one_or_none()
    dropped = await read_dropped_position(session)
    if position >= dropped and (row is None or row.position < dropped):
        return first_cursor(dropped)
    # Before the dropped position, the feed reports the cursor as expired. A later cursor would skip
    # changes, because a late leave has a higher position than changes that are kept.
    return HistoryCursor.of_row(*row) if row else HistoryCursor(position, "")


def _next_month(moment: datetime) -> datetime:
    """Return the start of the next month in UTC, where the next partition of history begins."""
    moment = moment.astimezone(UTC)
    return datetime(moment.year + moment.month // 12, moment.month % 12 + 1, 1, tzinfo=UTC)
