"""Reading the list of an import into PostgreSQL.

The import's row is its outbox. A worker claims the import for one attempt (`claim`), which has a
number and a lease. Each batch of rows is one transaction, which also extends the lease. If the
worker dies, the lease ends, and another worker starts again: it deletes the rows of the attempt
before it and reads the list from its beginning. An attempt that has lost its lease stores nothing,
because each transaction checks the attempt under the lock of the import's row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text

from segmentql.adapters.copying import copy_records
from segmentql.adapters.database import ReadSession, WriteSession
from segmentql.adapters.jobs import Message
from segmentql.imports.jobs import ADVANCE_IMPORT, FINISH_IMPORT
from segmentql.imports.row_parser import Row
from segmentql.imports.service import record_outcome

MAX_ATTEMPTS: Final = 8
"""The number of attempts to read a list, and of attempts to apply one chunk."""

MAX_STORE_REJECTIONS: Final = 5
"""The number of attempts if the store rejects them, because then a person must change something."""

RETRY_SECONDS: Final = 1
"""The wait before the second attempt. It doubles with each further attempt."""

MAX_RETRY_SECONDS: Final = 15
HEARTBEAT_SECONDS: Final = 3
LEASE_SECONDS: Final = 12
"""The time after the last heartbeat when the lease ends."""

DELETE_ROWS: Final = 20_000
"""The maximum number of staged rows that one transaction deletes."""

IS_FIRST: Final = """NOT EXISTS (
    SELECT FROM imports earlier
    WHERE earlier.segment_id = i.segment_id
      AND (earlier.queued_at, earlier.id) < (i.queued_at, i.id)
      AND (earlier.status = 'APPLYING' OR earlier.status IN ('QUEUED', 'VALIDATING')
        AND NOT CAST(earlier.options ->> 'dry_run' AS boolean)))
"""
"""SQL condition: it is the turn of the import `i` to be applied.

Imports of one segment are applied one at a time, in the order of `queued_at`. A dry run does not
apply.
"""

LEASE_END: Final = f"clock_timestamp() + make_interval(secs => {LEASE_SECONDS})"

_IS_UNREAD = text("""
SELECT EXISTS (
    SELECT FROM imports WHERE id = :import_id AND status IN ('QUEUED', 'VALIDATING'))
""")

_CLAIM = text(f"""
UPDATE imports SET
    status = 'VALIDATING', attempts = attempts + 1, next_attempt_at = {LEASE_END},
    row_count = NULL, counts = '{{}}', rejections = '[]'
WHERE id = :import_id AND status IN ('QUEUED', 'VALIDATING') AND attempts < {MAX_ATTEMPTS}
  AND next_attempt_at <= clock_timestamp()
RETURNING attempts
""")

# A worker that died in its last attempt did not report the failure.
_FAIL_ABANDONED = text(f"""
UPDATE imports SET
    status = 'FAILED', finished_at = clock_timestamp(), next_attempt_at = NULL, failure = :reason
WHERE id = :import_id AND status = 'VALIDATING' AND attempts >= {MAX_ATTEMPTS}
  AND next_attempt_at <= clock_timestamp()
RETURNING id
""")

_EXTEND_LEASE = text(f"""
UPDATE imports SET next_attempt_at = {LEASE_END}
WHERE id = :import_id AND status = 'VALIDATING' AND attempts = :number
RETURNING id
""")

_FAIL = text("""
UPDATE imports SET
    status = CASE WHEN attempts < :allowed THEN CAST('QUEUED' AS import_status) ELSE 'FAILED' END,
    failure = CASE WHEN attempts < :allowed THEN NULL ELSE CAST(:reason AS text) END,
    finished_at = CASE WHEN attempts < :allowed THEN NULL ELSE clock_timestamp() END,
    next_attempt_at = CASE WHEN attempts < :allowed
        THEN clock_timestamp() + make_interval(secs => :seconds) END
WHERE id = :import_id AND status = 'VALIDATING' AND attempts = :number
RETURNING status
""")

_REFUSE = text("""
UPDATE imports SET
    status = 'REFUSED', failure = :reason, finished_at = clock_timestamp(), next_attempt_at = NULL
WHERE id = :import_id AND status = 'VALIDATING' AND attempts = :number
RETURNING id
""")

_DELETE_STAGED: Final = tuple(
    text(f"""
DELETE FROM {table} WHERE import_id = :import_id AND {column} <= (
    SELECT max({column}) FROM (
        SELECT {column} FROM {table} WHERE import_id = :import_id
        ORDER BY {column} LIMIT {DELETE_ROWS}
    ) AS first)
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

# An import that waits for another one is not due.
_DUE = text(f"""
SELECT id FROM imports i
WHERE next_attempt_at < statement_timestamp() - interval '1 s'
  AND (status <> 'APPLYING' OR {IS_FIRST})
ORDER BY next_attempt_at LIMIT 100
""")

_SECONDS_TO_NEXT = text(f"""
SELECT CAST(extract(epoch FROM min(next_attempt_at) + interval '1 s' - statement_timestamp())
    AS float8)
FROM imports i
WHERE next_attempt_at IS NOT NULL AND (status <> 'APPLYING' OR {IS_FIRST})
""")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to read the list of an import. It holds a lease of the import."""

    import_id: int
    number: int
    """The number of the attempt, from 1."""


class LeaseLost(Exception):
    """Another attempt reads the list now, or the import was cancelled."""


async def is_unread(session: ReadSession, import_id: int) -> bool:
    """Return whether the list of an import is to be read, perhaps by an attempt in progress."""
    return bool((await session.execute(_IS_UNREAD, {"import_id": import_id})).scalar_one())


async def claim(session: WriteSession, import_id: int) -> Attempt | None:
    """Claim an import for an attempt; return None if it is not due or another attempt holds it.

    An import whose last attempt ended without a result fails.
    """
    values = {"import_id": import_id, "reason": "the worker died several times"}
    number = (await session.execute(_CLAIM, values)).scalar_one_or_none()
    if number is not None:
        return Attempt(import_id, number)
    if (await session.execute(_FAIL_ABANDONED, values)).one_or_none():
        await record_outcome(session, import_id)
        session.after_commit(Message(FINISH_IMPORT, (import_id,)))
    return None


async def extend_lease(session: WriteSession, attempt: Attempt) -> None:
    """Extend the lease, and lock the import's row until the transaction ends.

    Raises:
        LeaseLost: the attempt does not hold the lease any more.
    """
    values = {"import_id": attempt.import_id, "number": attempt.number}
    if (await session.execute(_EXTEND_LEASE, values)).one_or_none() is None:
        raise LeaseLost


async def fail(
    session: WriteSession, attempt: Attempt, *, reason: str, rejected_by_store: bool = False
) -> bool:
    """Record that an attempt failed, and enqueue the next one unless it was the last.

    Returns:
        Whether the import failed permanently.
    """
    seconds = min(RETRY_SECONDS * 2 ** (attempt.number - 1), MAX_RETRY_SECONDS)
    values = {
        "import_id": attempt.import_id,
        "number": attempt.number,
        "allowed": MAX_STORE_REJECTIONS if rejected_by_store else MAX_ATTEMPTS,
        "seconds": seconds,
        "reason": reason,
    }
    status = (await session.execute(_FAIL, values)).scalar_one_or_none()
    if status == "QUEUED":
        session.after_commit(Message(ADVANCE_IMPORT, (attempt.import_id,), delay_seconds=seconds))
    elif status == "FAILED":
        await record_outcome(session, attempt.import_id)
        session.after_commit(Message(FINISH_IMPORT, (attempt.import_id,)))
    return status == "FAILED"


async def refuse(session: WriteSession, attempt: Attempt, *, reason: str) -> None:
    """Record that no row of the file can be used."""
    values = {"import_id": attempt.import_id, "number": attempt.number, "reason": reason}
    if (await session.execute(_REFUSE, values)).one_or_none():
        await record_outcome(session, attempt.import_id)
        session.after_commit(Message(FINISH_IMPORT, (attempt.import_id,)))


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
    # Not earlier, because the heartbeats need the lock of the import's row.
    await extend_lease(session, attempt)


async def start_over(session: WriteSession, attempt: Attempt) -> bool:
    """Delete rows of the attempts before this one; return whether there may be more.

    Raises:
        LeaseLost: the attempt does not hold the lease any more.
    """
    await extend_lease(session, attempt)
    return await delete_staged_rows(session, attempt.import_id)


async def delete_staged_rows(session: WriteSession, import_id: int) -> bool:
    """Delete up to `DELETE_ROWS` staged rows of each kind; return whether there may be more."""
    deleted = 0
    for statement in _DELETE_STAGED:
        result = await session.execute(statement, {"import_id": import_id})
        deleted = max(deleted, result.rowcount)  # type: ignore[attr-defined]
    return deleted >= DELETE_ROWS


async def due_imports(session: ReadSession) -> list[int]:
    """Return the ids of up to 100 imports whose next attempt is overdue."""
    return list((await session.execute(_DUE)).scalars())


async def seconds_to_next(session: ReadSession) -> float | None:
    """Return the time until an unfinished import is due; None if no import has work."""
    seconds: float | None = (await session.execute(_SECONDS_TO_NEXT)).scalar_one()
    return seconds
