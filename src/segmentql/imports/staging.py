"""The staged rows of an import: storing its list in PostgreSQL, and deleting the rows.

Each batch of rows is one transaction, which also extends the lease of the attempt. An attempt first
deletes the rows of the attempts before it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import text

from segmentql.adapters.copying import copy_records
from segmentql.adapters.sessions import WriteSession
from segmentql.history.retention import check_history_since
from segmentql.imports.attempts import Attempt, extend_lease
from segmentql.imports.row_parser import Row

DELETE_ROWS: Final = 20_000
"""The maximum number of staged rows that one transaction deletes."""


# A batch begins after the last one, because PostgreSQL reads deleted rows again while an older
# transaction may still see them.
_DELETE_STAGED: Final = tuple(
    text(f"""
WITH batch AS (
    SELECT max({column}) AS last FROM (
        SELECT {column} FROM {table} WHERE import_id = :import_id AND {column} > :after
        ORDER BY {column} LIMIT {DELETE_ROWS}
    ) AS next_rows
), deleted AS (
    DELETE FROM {table} USING batch
    WHERE import_id = :import_id AND {column} > :after AND {column} <= batch.last
)
SELECT last FROM batch
""")
    for table, column in (("import_rows", "line"), ("import_users", "number"))
)

_ROW_COLUMNS: Final = ("import_id", "line", "value", "user_id", "user_key", "outcome", "detail")

# The members of segments now or at a past time, as a list in the order of the users' ids. The
# target's own members may be among them.
_MEMBERS_NOW: Final = """
SELECT m.user_id, m.segment_id FROM memberships m JOIN segments s ON s.id = m.segment_id
WHERE m.segment_id = ANY(CAST(:all_ids AS bigint[])) AND s.deleted_at IS NULL
  AND (m.expires_at IS NULL OR m.expires_at > now())
"""
_MEMBERS_THEN: Final = """
SELECT last.user_id, last.segment_id
FROM (
    SELECT DISTINCT ON (h.segment_id, h.user_id)
        h.segment_id, h.user_id, h.operation, h.membership_id
    FROM history h
    WHERE h.segment_id = ANY(CAST(:all_ids AS bigint[])) AND h.at <= :as_of
    ORDER BY h.segment_id, h.user_id, h.at DESC, h.operation DESC
) AS last
JOIN segments s ON s.id = last.segment_id
LEFT JOIN memberships m ON m.id = last.membership_id
    AND m.user_id = last.user_id AND m.segment_id = last.segment_id
WHERE last.operation = 'JOINED'
  AND (s.deleted_at IS NULL OR s.deleted_at > :as_of)
  AND (m.expires_at IS NULL OR m.expires_at > :as_of)
"""


def _stage_members(members: str) -> str:
    return f"""
INSERT INTO import_rows (import_id, line, user_id)
SELECT :import_id, row_number() OVER (ORDER BY user_id), user_id
FROM (
    SELECT user_id FROM ({members}) AS member GROUP BY user_id
    HAVING (CAST(:any_of AS bigint[]) IS NULL OR bool_or(segment_id = ANY(:any_of)))
       AND (CAST(:all_of AS bigint[]) IS NULL
            OR count(*) FILTER (WHERE segment_id = ANY(:all_of)) = cardinality(:all_of))
       AND (CAST(:none_of AS bigint[]) IS NULL OR NOT bool_or(segment_id = ANY(:none_of)))
) AS listed
"""


_STAGE_MEMBERS_NOW = text(_stage_members(_MEMBERS_NOW))
_STAGE_MEMBERS_THEN = text(_stage_members(_MEMBERS_THEN))


class LastDeleted(NamedTuple):
    """The last rows that a batch has deleted."""

    line: int
    """Of `import_rows`."""
    number: int
    """Of `import_users`."""


NOTHING_DELETED: Final = LastDeleted(0, 0)


async def stage_rows(session: WriteSession, attempt: Attempt, rows: Sequence[Row]) -> None:
    """Store a batch of rows, and extend the lease.

    Raises:
        LeaseLost: the attempt does not hold the lease any more.
    """
    await extend_lease(session, attempt)
    await copy_records(
        session, "import_rows", _ROW_COLUMNS, [_record(attempt.import_id, row) for row in rows]
    )


def _record(import_id: int, row: Row) -> tuple[object, ...]:
    identity = row.user_key if row.user_id is None else str(row.user_id)
    return (
        import_id,
        row.line,
        None if row.value == identity else row.value,
        row.user_id,
        row.user_key,
        row.outcome,
        row.detail,
    )


async def stage_members(
    session: WriteSession,
    attempt: Attempt,
    *,
    any_of: Sequence[int] | None,
    all_of: Sequence[int] | None,
    none_of: Sequence[int] | None,
    as_of: datetime | None,
) -> None:
    """Store the list that is computed from the members of segments, in one snapshot.

    Args:
        session: The session.
        attempt: The attempt.
        any_of: Ids of segments. The listed users are in at least one of them. None if any user may
            be listed.
        all_of: Ids of different segments. The listed users are in all of them.
        none_of: Ids of segments. The listed users are in none of them.
        as_of: The time of the memberships; None for now.

    Raises:
        HistoryDropped: the time is before the beginning of history.
        LeaseLost: the attempt does not hold the lease any more.
    """
    values = {
        "import_id": attempt.import_id,
        "all_ids": sorted({*(any_of or ()), *(all_of or ()), *(none_of or ())}),
        "any_of": any_of,
        "all_of": all_of,
        "none_of": none_of,
    }
    if as_of is None:
        await session.execute(_STAGE_MEMBERS_NOW, values)
    else:
        await session.execute(_STAGE_MEMBERS_THEN, {**values, "as_of": as_of})
        await check_history_since(session, as_of)
    # Not earlier, because the heartbeats need the lock of the import's row.
    await extend_lease(session, attempt)


async def start_over(
    session: WriteSession, attempt: Attempt, *, after: LastDeleted
) -> LastDeleted | None:
    """Delete rows of the attempts before this one, see `delete_staged_rows`.

    Raises:
        LeaseLost: the attempt does not hold the lease any more.
    """
    await extend_lease(session, attempt)
    return await delete_staged_rows(session, attempt.import_id, after=after)


async def delete_staged_rows(
    session: WriteSession, import_id: int, *, after: LastDeleted
) -> LastDeleted | None:
    """Delete up to `DELETE_ROWS` staged rows of each kind, in order.

    Args:
        session: The session.
        import_id: The import.
        after: The result of the previous batch, or `NOTHING_DELETED`.

    Returns:
        The last deleted rows; None if no row is left.
    """
    lasts: list[int] = []
    for statement, position in zip(_DELETE_STAGED, after, strict=True):
        values = {"import_id": import_id, "after": position}
        last = (await session.execute(statement, values)).scalar_one()
        lasts.append(position if last is None else last)
    deleted = LastDeleted(*lasts)
    return None if deleted == after else deleted
