"""Generation of reports by workers, and removal of old ones.

The report's row is its outbox. A worker claims a report for one attempt (`claim`), which has a
number and a lease. While the worker writes the file, it extends the lease every few seconds
(`heartbeat`). If the worker dies, the lease ends and another worker makes the next attempt. Each
attempt writes an object with its own random key, which identifies the attempt. Only the attempt
that holds the lease publishes its key.

If the key of a user is erased, reports with keys start again (`remake_reports_with_keys`). A
running attempt loses its lease, and the next attempt deletes the file of the one before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text

from segmentql.adapters.database import ReadSession, WriteSession
from segmentql.adapters.jobs import Message
from segmentql.reports.jobs import MAKE_REPORT
from segmentql.reports.records import OldReport, ReportScope

MAX_REPORT_ATTEMPTS: Final = 8
MAX_STORE_REJECTIONS: Final = 5
"""The number of attempts if the store rejects them, because then a person must change something."""

RETRY_SECONDS: Final = 1
"""The wait before the second attempt. It doubles with each further attempt."""

MAX_RETRY_SECONDS: Final = 15
"""The maximum wait. The waits of 8 attempts add up to 60 s, so a report survives an outage of the
store of about a minute."""

HEARTBEAT_SECONDS: Final = 3
LEASE_SECONDS: Final = 12
"""The time after the last heartbeat when the lease ends."""

COPY_TIMEOUT_SECONDS: Final = 1800
"""The time limit of the query that reads the rows of one file."""

REMOVE_ROWS: Final = 500

_LEASE_END: Final = f"clock_timestamp() + make_interval(secs => {LEASE_SECONDS})"

# A claim waits for a transaction that erases keys, so that the attempt reads no erased key: the
# attempt starts either before the transaction marks the reports, or after its commit.
_KEY_ERASURE_LOCK: Final = 7004
_LOCK_TO_CLAIM = text(f"SELECT pg_advisory_xact_lock_shared({_KEY_ERASURE_LOCK}, 0)")
_LOCK_TO_REMAKE = text(f"SELECT pg_advisory_xact_lock({_KEY_ERASURE_LOCK}, 0)")

# The object key stays, so that the next attempt deletes the object. All leaves of a deleted user
# are recorded in history.
_REMAKE = text("""
UPDATE reports r SET
    status = 'QUEUED', attempts = 0, next_attempt_at = clock_timestamp(),
    remade_at = clock_timestamp(), finished_at = NULL, row_count = NULL, size_bytes = NULL
FROM (SELECT CAST(:user_ids AS bigint[]) AS user_ids) AS erased
WHERE r.with_keys AND r.status <> 'FAILED' AND (
    r.user_id = ANY(erased.user_ids)
    OR r.user_id IS NULL AND EXISTS (
        SELECT FROM history h
        WHERE h.user_id = ANY(erased.user_ids)
          AND h.at >= make_date(r.year, r.month, 1) AT TIME ZONE 'UTC'
          AND h.at < (make_date(r.year, r.month, 1) + interval '1 month') AT TIME ZONE 'UTC'))
RETURNING r.id
""")

_CLAIM = text(f"""
UPDATE reports SET
    status = 'RUNNING', attempts = attempts + 1, next_attempt_at = {_LEASE_END},
    object_key = 'reports/' || gen_random_uuid() || '.csv'
WHERE id = :report_id AND attempts < {MAX_REPORT_ATTEMPTS}
  AND status IN ('QUEUED', 'RUNNING') AND next_attempt_at <= clock_timestamp()
RETURNING attempts, new.object_key, old.object_key AS abandoned_key, user_id, year, month,
    with_keys
""")

# A worker that died in its last attempt did not report the failure.
_FAIL_ABANDONED = text(f"""
UPDATE reports SET
    status = 'FAILED', finished_at = clock_timestamp(), object_key = NULL, failure = :reason
WHERE id = :report_id AND attempts >= {MAX_REPORT_ATTEMPTS} AND status = 'RUNNING'
  AND next_attempt_at <= clock_timestamp()
""")

_HEARTBEAT = text(f"""
UPDATE reports SET next_attempt_at = {_LEASE_END}
WHERE id = :report_id AND object_key = :object_key AND status = 'RUNNING'
RETURNING id
""")

_FINISH = text("""
UPDATE reports SET
    status = 'READY', row_count = :row_count, size_bytes = :size_bytes,
    finished_at = clock_timestamp()
WHERE id = :report_id AND object_key = :object_key AND status = 'RUNNING'
RETURNING extract(epoch FROM finished_at - coalesce(remade_at, created_at)) AS seconds
""")

_FAIL = text("""
UPDATE reports SET
    status = CASE WHEN attempts < :allowed THEN CAST('QUEUED' AS report_status) ELSE 'FAILED' END,
    failure = CASE WHEN attempts < :allowed THEN NULL ELSE CAST(:reason AS text) END,
    finished_at = CASE WHEN attempts < :allowed THEN NULL ELSE clock_timestamp() END,
    next_attempt_at = clock_timestamp() + make_interval(secs => :seconds),
    object_key = NULL
WHERE id = :report_id AND object_key = :object_key AND status = 'RUNNING'
RETURNING status
""")

# The job's message should arrive first, so the scheduler waits one second longer.
_SCHEDULED_AT: Final = "next_attempt_at + interval '1 s'"

_DUE = text(f"""
SELECT id FROM reports
WHERE status IN ('QUEUED', 'RUNNING') AND {_SCHEDULED_AT} < statement_timestamp()
ORDER BY next_attempt_at LIMIT 100
""")

_SECONDS_TO_NEXT = text(f"""
SELECT CAST(extract(epoch FROM min({_SCHEDULED_AT}) - statement_timestamp()) AS float8)
FROM reports WHERE status IN ('QUEUED', 'RUNNING')
""")

_OLD = text(f"""
SELECT id AS report_id, object_key FROM reports
WHERE created_at < statement_timestamp() - make_interval(days => :days)
ORDER BY id LIMIT {REMOVE_ROWS}
""")

_REMOVE = text("DELETE FROM reports WHERE id = ANY(:report_ids)")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to generate a report. It holds a lease of the report."""

    report_id: int
    number: int
    """The number of the attempt, from 1."""
    object_key: str
    abandoned_key: str | None
    """The key of an object that a worker may have left in the store when it died."""
    scope: ReportScope


async def claim(session: WriteSession, report_id: int) -> Attempt | None:
    """Claim a report for an attempt; return None if it is not due or another attempt holds it.

    If the worker of the last attempt died, the report is marked as FAILED.
    """
    await session.execute(_LOCK_TO_CLAIM)
    row = (await session.execute(_CLAIM, {"report_id": report_id})).one_or_none()
    if row is None:
        reason = f"the worker died in each of {MAX_REPORT_ATTEMPTS} attempts"
        await session.execute(_FAIL_ABANDONED, {"report_id": report_id, "reason": reason})
        return None
    scope = ReportScope(row.year, row.month, row.user_id, row.with_keys)
    return Attempt(report_id, row.attempts, row.object_key, row.abandoned_key, scope)


async def heartbeat(session: WriteSession, attempt: Attempt) -> bool:
    """Extend the lease of an attempt; return whether the attempt still holds it."""
    values = {"report_id": attempt.report_id, "object_key": attempt.object_key}
    return (await session.execute(_HEARTBEAT, values)).one_or_none() is not None


async def finish(
    session: WriteSession, attempt: Attempt, *, row_count: int, size_bytes: int
) -> float | None:
    """Publish the file of an attempt if the attempt still holds its lease.

    Returns:
        The seconds from the request, or from the erasure of a key for which the report is made
        again, to now; None if the attempt has lost its lease.
    """
    values = {"report_id": attempt.report_id, "object_key": attempt.object_key}
    finished = await session.execute(
        _FINISH, {**values, "row_count": row_count, "size_bytes": size_bytes}
    )
    row = finished.one_or_none()
    return None if row is None else float(row.seconds)


async def fail(
    session: WriteSession, attempt: Attempt, *, reason: str, rejected_by_store: bool = False
) -> bool:
    """Record that an attempt failed, and enqueue the next one unless it was the last.

    Args:
        session: The session.
        attempt: The attempt.
        reason: The failure that clients see if it was the last attempt.
        rejected_by_store: Whether the store rejected the request. Then there are fewer attempts.

    Returns:
        Whether the report failed permanently.
    """
    seconds = min(RETRY_SECONDS * 2 ** (attempt.number - 1), MAX_RETRY_SECONDS)
    values = {
        "report_id": attempt.report_id,
        "object_key": attempt.object_key,
        "allowed": MAX_STORE_REJECTIONS if rejected_by_store else MAX_REPORT_ATTEMPTS,
        "seconds": seconds,
        "reason": reason,
    }
    row = (await session.execute(_FAIL, values)).one_or_none()
    if row is None:
        return False
    if row.status == "QUEUED":
        session.after_commit(Message(MAKE_REPORT, (attempt.report_id,), delay_seconds=seconds))
        return False
    return True


async def remake_reports_with_keys(session: WriteSession, user_ids: Sequence[int]) -> None:
    """Make reports again whose files may have an erased key.

    Args:
        session: The session of the transaction that erased the key.
        user_ids: The ids of the users that had the key.
    """
    await session.execute(_LOCK_TO_REMAKE)
    for report_id in (await session.execute(_REMAKE, {"user_ids": list(user_ids)})).scalars():
        session.after_commit(Message(MAKE_REPORT, (report_id,)))


async def due_reports(session: ReadSession) -> list[int]:
    """Return the ids of up to 100 reports whose next attempt is overdue."""
    return list((await session.execute(_DUE)).scalars())


async def seconds_to_next(session: ReadSession) -> float | None:
    """Return the time until an unfinished report is due; None if every report is finished."""
    seconds: float | None = (await session.execute(_SECONDS_TO_NEXT)).scalar_one()
    return seconds


async def old_reports(session: ReadSession, *, days: int) -> list[OldReport]:
    """Return up to `REMOVE_ROWS` reports that are older than `days` days."""
    rows = await session.execute(_OLD, {"days": days})
    return [OldReport(row.report_id, row.object_key) for row in rows]


async def remove_reports(session: WriteSession, report_ids: list[int]) -> None:
    """Delete reports whose objects are deleted."""
    await session.execute(_REMOVE, {"report_ids": report_ids})
