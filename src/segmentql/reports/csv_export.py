"""The rows of a report: the entries of history of a month, as CSV.

PostgreSQL writes the CSV. The columns are `user_id,segment_slug,operation,executed_at`. The
operation is `I` for a join and `D` for a leave. A report with keys has a fifth column, `user_key`,
with the key that `HistoryEntry.userKey` has for the entry, or nothing if it is null. Times are
in UTC, truncated to the second. The rows are sorted by time, user, operation (leaves first) and
slug. One statement reads them, so a file shows one state of the database.
"""

from datetime import UTC, datetime
from typing import Final

from segmentql.adapters.csv_stream import CHUNKS_AHEAD, CsvStream
from segmentql.adapters.sessions import ReadSession
from segmentql.history.service import ENDED_WITH_SEGMENT, EXPIRED, user_key_at
from segmentql.reports.records import ReportScope

# The report includes leaves that are not recorded yet. The bounds of the month prune the
# partitions. The user is a separate condition, so that PostgreSQL uses an index on users.
_ENTRIES: Final = """
SELECT h.at, h.user_id, h.operation, s.slug
FROM history h JOIN segments s ON s.id = h.segment_id
WHERE h.at >= $1 AND h.at < $2 {and_user_of_h}
UNION ALL
SELECT m.expires_at, m.user_id, CAST('LEFT' AS operation), s.slug
FROM memberships m JOIN segments s ON s.id = m.segment_id
WHERE m.expires_at >= $1 AND m.expires_at < $2 AND {expired} {and_user_of_m}
UNION ALL
SELECT s.deleted_at, m.user_id, CAST('LEFT' AS operation), s.slug
FROM segments s JOIN memberships m ON m.segment_id = s.id
WHERE s.deleted_at >= $1 AND s.deleted_at < $2 AND {ended_with_segment} {and_user_of_m}
"""

_CSV: Final = """
SELECT user_id, slug AS segment_slug,
    CASE operation WHEN 'JOINED' THEN 'I' ELSE 'D' END AS operation,
    to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS executed_at{and_key}
FROM ({entries}) AS entry
ORDER BY at, user_id, entry.operation, slug
"""


class CsvExport(CsvStream):
    """The CSV of a report, which can be read once."""

    def __init__(
        self, session: ReadSession, scope: ReportScope, *, chunks_ahead: int = CHUNKS_AHEAD
    ) -> None:
        statement, arguments = csv_statement(scope)
        super().__init__(session, statement, arguments, chunks_ahead=chunks_ahead)


async def count_rows(session: ReadSession, scope: ReportScope) -> int:
    """Return the number of rows that the report has now. It counts them, which may be slow."""
    entries, arguments = _entries(scope)
    connection = await session.connection()
    counted = await connection.exec_driver_sql(
        f"SELECT count(*) FROM ({entries}) AS entry",
        arguments,
    )
    return int(counted.scalar_one())


def csv_statement(scope: ReportScope) -> tuple[str, tuple[object, ...]]:
    """Return the query of a report's CSV and its arguments, in asyncpg's form."""
    entries, arguments = _entries(scope)
    key = f", {user_key_at('entry.user_id', 'entry.at')} AS user_key"
    return _CSV.format(entries=entries, and_key=key if scope.with_keys else ""), arguments


def _entries(scope: ReportScope) -> tuple[str, tuple[object, ...]]:
    start = datetime(scope.year, scope.month, 1, tzinfo=UTC)
    is_last_month = (scope.year, scope.month) == (9999, 12)
    end = (
        datetime.max.replace(tzinfo=UTC)
        if is_last_month
        else datetime(scope.year + scope.month // 12, scope.month % 12 + 1, 1, tzinfo=UTC)
    )
    of_one_user = scope.user_id is not None
    entries = _ENTRIES.format(
        expired=EXPIRED,
        ended_with_segment=ENDED_WITH_SEGMENT,
        and_user_of_h="AND h.user_id = $3" if of_one_user else "",
        and_user_of_m="AND m.user_id = $3" if of_one_user else "",
    )
    return entries, (start, end, scope.user_id) if of_one_user else (start, end)
