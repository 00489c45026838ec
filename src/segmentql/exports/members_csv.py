"""The rows of an export: the members of a segment at a time, as CSV.

PostgreSQL writes the CSV. The columns are `user_id,user_key,joined_at,expires_at,cause`, the rows
are sorted by user id, and times are in UTC with six digits of a second. One statement reads the
rows, so that a file shows one state of the database. The worker reads them after the time of the
export, perhaps much later. A member at that time is one of these:

- A stored membership that began by then and had not ended by then. A membership that has ended but
  whose leave is not recorded is also stored. Its `expires_at` or the deletion of the segment is
  compared with the time, not with the present.
- A membership that ended after that time, and whose leave is recorded. It is not stored any more,
  and its join and its leave are in history.

The transaction that deletes a membership also records the leave, so a statement sees each
membership in exactly one of the two places. A recent time needs only few rows of history.

`expires_at` is the end as it is known now: an end that was set later than the time of the export is
shown as well. It is empty if there is none, or if the membership is not stored any more and did not
end by its TTL. `cause` is the cause of the membership at that time, or if the membership was
changed later, the cause of the join in history.
"""

from datetime import datetime
from typing import Final

from segmentql.adapters.csv_stream import CsvStream
from segmentql.adapters.sessions import ReadSession
from segmentql.history.service import user_key_at

# A membership that was not changed since the time has its cause of then. For the others, the cause
# of the join is read by the primary key of history.
_STORED: Final = """
SELECT m.user_id, u.key AS user_key, m.joined_at, m.expires_at,
    CASE WHEN m.updated_at <= $2 THEN m.cause
        ELSE coalesce((
            SELECT h.cause FROM history h
            WHERE h.user_id = m.user_id AND h.at = m.joined_at AND h.segment_id = m.segment_id
              AND h.operation = 'JOINED'
        ), m.cause) END AS cause
FROM memberships m JOIN users u ON u.id = m.user_id
WHERE m.segment_id = $1 AND m.joined_at <= $2 AND (m.expires_at IS NULL OR m.expires_at > $2)
  AND EXISTS (
    SELECT FROM segments s WHERE s.id = $1 AND (s.deleted_at IS NULL OR s.deleted_at > $2))
"""

_ENDED: Final = f"""
SELECT l.user_id, {user_key_at("l.user_id", "j.at")} AS user_key, j.at AS joined_at,
    CASE WHEN l.cause = 'TTL' THEN l.at END AS expires_at, j.cause
FROM history l
JOIN history j ON j.segment_id = l.segment_id AND j.user_id = l.user_id
    AND j.membership_id = l.membership_id AND j.operation = 'JOINED' AND j.at <= $2
WHERE l.segment_id = $1 AND l.operation = 'LEFT' AND l.at > $2
"""


def _utc(column: str) -> str:
    """Return the SQL expression of a time in UTC in the form of RFC 3339."""
    return f"""to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS {column}"""


_CSV: Final = f"""
SELECT user_id, user_key, {_utc("joined_at")}, {_utc("expires_at")}, cause
FROM ({_STORED} UNION ALL {_ENDED}) AS member
ORDER BY user_id
"""


def members_csv(session: ReadSession, segment_id: int, as_of: datetime) -> CsvStream:
    """Return the CSV of the members of a segment at a time, which is not in the future."""
    return CsvStream(session, *csv_statement(segment_id, as_of))


def csv_statement(segment_id: int, as_of: datetime) -> tuple[str, tuple[object, ...]]:
    """Return the query of an export's CSV and its arguments, in asyncpg's form."""
    return _CSV, (segment_id, as_of)
