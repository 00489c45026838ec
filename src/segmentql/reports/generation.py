"""Generation of reports by workers.

The report's row is its outbox. A worker claims a report for one attempt (`claim`), which has a
number and a lease. While the worker writes the file, it extends the lease every few seconds
(`heartbeat`). If the worker dies, the lease ends and another worker makes the next attempt. Each
attempt writes an object with its own random key, which identifies the attempt. Only the attempt
that holds the lease publishes its key. The objects of the other attempts are discarded, see
`segmentql.objects`.

If the key of a user is erased, reports with keys start again (`remake_reports_with_keys`). The old
file is discarded at once, and a running attempt loses its lease. Reports start only after a series
of erasures, so that a large one does not start again at each of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text

from segmentql.adapters.database import WriteSession
from segmentql.adapters.jobs import Message
from segmentql.errors import StoreUnavailable
from segmentql.objects import service as objects
from segmentql.reports.jobs import MAKE_REPORT
from segmentql.reports.records import ReportScope

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

MAX_UPLOAD_SECONDS: Final = 2 * MAKE_REPORT.time_limit_seconds
"""How long an attempt may write its object, also after it lost its lease. The time limit of the job
ends it, perhaps late."""

REMAKE_DELAY_SECONDS: Final = 10
"""The time from the last erasure of a key until a report starts again."""

MAX_REMAKE_DELAY_SECONDS: Final = 300
"""The time from the first erasure since the file was ready, after which a report starts although
keys are still being erased. Such an attempt may be interrupted. The next one then starts
`REMAKE_DELAY_SECONDS` later."""

_LEASE_END: Final = f"clock_timestamp() + make_interval(secs => {LEASE_SECONDS})"

# A claim waits for a transaction that erases keys, so that the attempt reads no erased key: the
# attempt starts either before the transaction marks the reports, or after its commit.
_KEY_ERASURE_LOCK: Final = 7004
_LOCK_TO_CLAIM = text(f"SELECT pg_advisory_xact_lock_shared({_KEY_ERASURE_LOCK}, 0)")
_LOCK_TO_REMAKE = text(f"SELECT pg_advisory_xact_lock({_KEY_ERASURE_LOCK}, 0)")

# All leaves of a deleted user are recorded in history. A queued report has read no key yet. If it
# starts again, it only waits longer.
_REMAKE = text(f"""
WITH remade AS (
    UPDATE reports r SET
        status = 'QUEUED',
        attempts = CASE WHEN r.status = 'QUEUED' THEN r.attempts ELSE 0 END,
        remade_at = CASE WHEN r.status = 'READY' THEN at ELSE coalesce(r.remade_at, at) END,
        next_attempt_at = CASE WHEN r.status = 'QUEUED'
            THEN greatest(r.next_attempt_at, least(at + delay, r.remade_at + max_delay))
            ELSE at + delay END,
        finished_at = NULL, row_count = NULL, size_bytes = NULL, object_key = NULL
    FROM (
        SELECT CAST(:user_ids AS bigint[]) AS user_ids, clock_timestamp() AS at,
            make_interval(secs => {REMAKE_DELAY_SECONDS}) AS delay,
            make_interval(secs => {MAX_REMAKE_DELAY_SECONDS}) AS max_delay
        OFFSET 0
    ) AS erased
    WHERE r.with_keys
      AND (r.status IN ('READY', 'RUNNING') OR r.status = 'QUEUED' AND r.remade_at IS NOT NULL)
      AND (
        r.user_id = ANY(erased.user_ids)
        OR r.user_id IS NULL AND EXISTS (
            SELECT FROM history h
            WHERE h.user_id = ANY(erased.user_ids)
              AND h.at >= make_date(r.year, r.month, 1) AT TIME ZONE 'UTC'
              AND h.at < (make_date(r.year, r.month, 1) + interval '1 month') AT TIME ZONE 'UTC'))
    RETURNING r.id, old.status AS old_status, old.object_key
)
SELECT id, old_status <> 'QUEUED' AS is_new, object_key FROM remade ORDER BY id
""")

_CLAIM = text(f"""
UPDATE reports SET
    status = 'RUNNING', attempts = attempts + 1, next_attempt_at = {_LEASE_END},
    object_key = 'reports/' || gen_random_uuid() || '.csv'
WHERE id = :report_id AND attempts < {MAX_REPORT_ATTEMPTS}
  AND status IN ('QUEUED', 'RUNNING') AND next_attempt_at <= clock_timestamp()
RETURNING attempts, new.object_key, old.object_key AS old_object_key, user_id, year, month,
    with_keys
""")

# A worker that died in its last attempt did not report the failure.
_FAIL_ABANDONED = text(f"""
UPDATE reports SET
    status = 'FAILED', finished_at = clock_timestamp(), object_key = NULL, failure = :reason
WHERE id = :report_id AND attempts >= {MAX_REPORT_ATTEMPTS} AND status = 'RUNNING'
  AND next_attempt_at <= clock_timestamp()
RETURNING old.object_key
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

_IS_PUBLISHED = text("""
SELECT EXISTS (SELECT FROM reports WHERE id = :report_id AND object_key = :object_key)
""")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to generate a report. It holds a lease of the report."""

    report_id: int
    number: int
    """The number of the attempt, from 1."""
    object_key: str
    scope: ReportScope


async def claim(session: WriteSession, report_id: int) -> Attempt | None:
    """Claim a report for an attempt; return None if it is not due or another attempt holds it.

    If the worker of the last attempt died, the report is marked as FAILED.
    """
    await session.execute(_LOCK_TO_CLAIM)
    row = (await session.execute(_CLAIM, {"report_id": report_id})).one_or_none()
    if row is None:
        reason = f"the worker died in each of {MAX_REPORT_ATTEMPTS} attempts"
        failed = await session.execute(_FAIL_ABANDONED, {"report_id": report_id, "reason": reason})
        await discard_objects(session, [failed.scalar_one_or_none()])
        return None
    # The last attempt may still be alive. If it is not, it left perhaps a part of its file.
    await discard_objects(session, [row.old_object_key])
    await objects.begin_upload(session, row.object_key, max_seconds=MAX_UPLOAD_SECONDS)
    scope = ReportScope(row.year, row.month, row.user_id, row.with_keys)
    return Attempt(report_id, row.attempts, row.object_key, scope)


async def discard_objects(session: WriteSession, object_keys: Sequence[str | None]) -> None:
    """Discard the objects of attempts, which may still be written. None is ignored."""
    await objects.discard(
        session, [key for key in object_keys if key], max_write_seconds=MAX_UPLOAD_SECONDS
    )


async def discard_unless_published(session: WriteSession, attempt: Attempt) -> None:
    """Discard the object of an attempt that has lost its lease.

    If the connection was lost during a commit, the attempt may have published it.
    """
    values = {"report_id": attempt.report_id, "object_key": attempt.object_key}
    if not (await session.execute(_IS_PUBLISHED, values)).scalar_one():
        await discard_objects(session, [attempt.object_key])


async def heartbeat(session: WriteSession, attempt: Attempt) -> bool:
    """Extend the lease of an attempt; return whether the attempt still holds it."""
    values = {"report_id": attempt.report_id, "object_key": attempt.object_key}
    return (await session.execute(_HEARTBEAT, values)).one_or_none() is not None


async def finish(
    session: WriteSession, attempt: Attempt, *, row_count: int, size_bytes: int
) -> float | None:
    """Publish the file of an attempt if the attempt still holds its lease.

    Returns:
        The seconds from the request, or from the first erasure of a key since the file was ready,
        to now; None if the attempt has lost its lease. Its object is then discarded.

    Raises:
        StoreUnavailable: the upload took so much time that its object is being deleted.
    """
    values = {"report_id": attempt.report_id, "object_key": attempt.object_key}
    finished = await session.execute(
        _FINISH, {**values, "row_count": row_count, "size_bytes": size_bytes}
    )
    row = finished.one_or_none()
    if row is None:
        await discard_unless_published(session, attempt)
        return None
    if not await objects.keep_upload(session, attempt.object_key):
        raise StoreUnavailable("the upload took too long")
    return float(row.seconds)


async def fail(
    session: WriteSession, attempt: Attempt, *, reason: str, rejected_by_store: bool = False
) -> bool:
    """Record that an attempt failed, and enqueue the next one unless it was the last.

    The object of the attempt is discarded.

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
        await discard_unless_published(session, attempt)
        return False
    await discard_objects(session, [attempt.object_key])
    if row.status == "QUEUED":
        session.after_commit(Message(MAKE_REPORT, (attempt.report_id,), delay_seconds=seconds))
        return False
    return True


async def remake_reports_with_keys(session: WriteSession, user_ids: Sequence[int]) -> None:
    """Make reports again whose files may have an erased key, and discard the files.

    Args:
        session: The session of the transaction that erased the key.
        user_ids: The ids of the users that had the key.
    """
    await session.execute(_LOCK_TO_REMAKE)
    remade = (await session.execute(_REMAKE, {"user_ids": list(user_ids)})).all()
    await discard_objects(session, [row.object_key for row in remade])
    for row in remade:
        if row.is_new:  # the others have a message, or the scheduler finds them
            session.after_commit(
                Message(MAKE_REPORT, (row.id,), delay_seconds=REMAKE_DELAY_SECONDS)
            )
