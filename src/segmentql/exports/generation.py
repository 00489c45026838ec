"""Generation of exports by workers.

The export's row is its outbox. A worker claims an export for one attempt (`claim`), which has a
number and a lease. While the worker writes the file, it extends the lease every few seconds
(`heartbeat`). If the worker dies, the lease ends and another worker makes the next attempt. Each
attempt writes an object with its own random key, which identifies the attempt. Only the attempt
that holds the lease publishes its key. The objects of the other attempts are discarded, see
`segmentql.objects`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text

from segmentql.adapters.database import WriteSession
from segmentql.adapters.jobs import Message
from segmentql.errors import StoreUnavailable
from segmentql.exports.jobs import MAKE_EXPORT
from segmentql.objects import service as objects

MAX_EXPORT_ATTEMPTS: Final = 8
MAX_STORE_REJECTIONS: Final = 5
"""The number of attempts if the store rejects them, because then a person must change something."""

RETRY_SECONDS: Final = 1
"""The wait before the second attempt. It doubles with each further attempt."""

MAX_RETRY_SECONDS: Final = 15
"""The maximum wait. The waits of 8 attempts add up to 60 s, so an export survives an outage of the
store of about a minute."""

HEARTBEAT_SECONDS: Final = 3
LEASE_SECONDS: Final = 12
"""The time after the last heartbeat when the lease ends."""

COPY_TIMEOUT_SECONDS: Final = 1800
"""The time limit of the query that reads the rows of one file."""

MAX_UPLOAD_SECONDS: Final = 2 * MAKE_EXPORT.time_limit_seconds
"""How long an attempt may write its object, also after it lost its lease. The time limit of the job
ends it, perhaps late."""

KEY_ERASED: Final = "a user's key was erased; create the export again"

_LEASE_END: Final = f"clock_timestamp() + make_interval(secs => {LEASE_SECONDS})"

# A claim waits for a transaction that erases keys, so that the attempt reads no erased key: the
# attempt starts either before the transaction fails the exports, or after its commit.
_KEY_ERASURE_LOCK: Final = 7005
_LOCK_TO_CLAIM = text(f"SELECT pg_advisory_xact_lock_shared({_KEY_ERASURE_LOCK}, 0)")
_LOCK_TO_ERASE = text(f"SELECT pg_advisory_xact_lock({_KEY_ERASURE_LOCK}, 0)")

# A queued export has read no key yet: the objects of its failed attempts are discarded.
_FAIL_WITH_KEYS = text("""
UPDATE exports e SET
    status = 'FAILED', failure = :reason, finished_at = clock_timestamp(), next_attempt_at = NULL,
    row_count = NULL, size_bytes = NULL, object_key = NULL
WHERE e.status IN ('READY', 'RUNNING') AND EXISTS (
    SELECT FROM history h
    WHERE h.user_id = ANY(:user_ids) AND h.segment_id = e.segment_id AND h.at <= e.as_of)
RETURNING old.object_key
""")

_CLAIM = text(f"""
UPDATE exports SET
    status = 'RUNNING', attempts = attempts + 1, next_attempt_at = {_LEASE_END},
    object_key = 'exports/' || gen_random_uuid() || CASE WHEN gzip THEN '.csv.gz' ELSE '.csv' END
WHERE id = :export_id AND attempts < {MAX_EXPORT_ATTEMPTS}
  AND status IN ('QUEUED', 'RUNNING') AND next_attempt_at <= clock_timestamp()
RETURNING attempts, new.object_key, old.object_key AS old_object_key, segment_id, as_of, gzip
""")

# A worker that died in its last attempt did not report the failure.
_FAIL_ABANDONED = text(f"""
UPDATE exports SET
    status = 'FAILED', finished_at = clock_timestamp(), next_attempt_at = NULL, object_key = NULL,
    failure = :reason
WHERE id = :export_id AND attempts >= {MAX_EXPORT_ATTEMPTS} AND status = 'RUNNING'
  AND next_attempt_at <= clock_timestamp()
RETURNING old.object_key
""")

_OF_ATTEMPT: Final = "id = :export_id AND object_key = :object_key AND status = 'RUNNING'"

_HEARTBEAT = text(f"""
UPDATE exports SET next_attempt_at = {_LEASE_END} WHERE {_OF_ATTEMPT} RETURNING id
""")

_FINISH = text(f"""
UPDATE exports SET
    status = 'READY', row_count = :row_count, size_bytes = :size_bytes, next_attempt_at = NULL,
    finished_at = clock_timestamp()
WHERE {_OF_ATTEMPT}
RETURNING extract(epoch FROM finished_at - created_at) AS seconds
""")

_FAIL = text(f"""
UPDATE exports SET
    status = CASE WHEN attempts < :allowed THEN CAST('QUEUED' AS report_status) ELSE 'FAILED' END,
    failure = CASE WHEN attempts < :allowed THEN NULL ELSE CAST(:reason AS text) END,
    finished_at = CASE WHEN attempts < :allowed THEN NULL ELSE clock_timestamp() END,
    next_attempt_at = CASE WHEN attempts < :allowed
        THEN clock_timestamp() + make_interval(secs => :seconds) END,
    object_key = NULL
WHERE {_OF_ATTEMPT}
RETURNING status
""")

_IS_PUBLISHED = text("""
SELECT EXISTS (SELECT FROM exports WHERE id = :export_id AND object_key = :object_key)
""")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to generate an export. It holds a lease of the export."""

    export_id: int
    number: int
    """The number of the attempt, from 1."""
    object_key: str
    segment_id: int
    as_of: datetime
    is_gzip: bool


async def claim(session: WriteSession, export_id: int) -> Attempt | None:
    """Claim an export for an attempt; return None if it is not due or another attempt holds it.

    If the worker of the last attempt died, the export is marked as FAILED.
    """
    await session.execute(_LOCK_TO_CLAIM)
    row = (await session.execute(_CLAIM, {"export_id": export_id})).one_or_none()
    if row is None:
        reason = f"the worker died in each of {MAX_EXPORT_ATTEMPTS} attempts"
        failed = await session.execute(_FAIL_ABANDONED, {"export_id": export_id, "reason": reason})
        await discard_objects(session, [failed.scalar_one_or_none()])
        return None
    # The last attempt may still be alive. If it is not, it left perhaps a part of its file.
    await discard_objects(session, [row.old_object_key])
    await objects.begin_upload(session, row.object_key, max_seconds=MAX_UPLOAD_SECONDS)
    return Attempt(
        export_id, row.attempts, row.object_key, row.segment_id, row.as_of, is_gzip=row.gzip
    )


async def discard_objects(session: WriteSession, object_keys: Sequence[str | None]) -> None:
    """Discard the objects of attempts, which may still be written. None is ignored."""
    await objects.discard(
        session, [key for key in object_keys if key], max_write_seconds=MAX_UPLOAD_SECONDS
    )


async def heartbeat(session: WriteSession, attempt: Attempt) -> bool:
    """Extend the lease of an attempt; return whether the attempt still holds it."""
    return (await session.execute(_HEARTBEAT, _key(attempt))).one_or_none() is not None


async def finish(
    session: WriteSession, attempt: Attempt, *, row_count: int, size_bytes: int
) -> float | None:
    """Publish the file of an attempt if the attempt still holds its lease.

    Returns:
        The seconds from the request to now; None if the attempt has lost its lease. Its object is
        then discarded.

    Raises:
        StoreUnavailable: the upload took so much time that its object is being deleted.
    """
    values = {**_key(attempt), "row_count": row_count, "size_bytes": size_bytes}
    row = (await session.execute(_FINISH, values)).one_or_none()
    if row is None:
        await _discard_unless_published(session, attempt)
        return None
    if not await objects.keep_upload(session, attempt.object_key):
        raise StoreUnavailable("the upload took too long")
    return float(row.seconds)


async def fail(
    session: WriteSession, attempt: Attempt, *, reason: str, rejected_by_store: bool = False
) -> bool:
    """Record that an attempt failed, and enqueue the next one unless it was the last.

    If the attempt has lost its lease, its object is discarded, and nothing else happens.

    Returns:
        Whether the export failed permanently.
    """
    seconds = min(RETRY_SECONDS * 2 ** (attempt.number - 1), MAX_RETRY_SECONDS)
    values = {
        **_key(attempt),
        "allowed": MAX_STORE_REJECTIONS if rejected_by_store else MAX_EXPORT_ATTEMPTS,
        "seconds": seconds,
        "reason": reason,
    }
    row = (await session.execute(_FAIL, values)).one_or_none()
    if row is None:
        await _discard_unless_published(session, attempt)
        return False
    await discard_objects(session, [attempt.object_key])
    if row.status == "QUEUED":
        session.after_commit(Message(MAKE_EXPORT, (attempt.export_id,), delay_seconds=seconds))
        return False
    return True


async def fail_exports_with_keys(session: WriteSession, user_ids: Sequence[int]) -> None:
    """Fail the exports whose files may have an erased key, and discard the files.

    These are the exports of segments that one of the users had joined by the time of the export.
    A running attempt loses its lease.

    Args:
        session: The session of the transaction that erased the key.
        user_ids: The ids of the users that had the key.
    """
    await session.execute(_LOCK_TO_ERASE)
    values = {"user_ids": list(user_ids), "reason": KEY_ERASED}
    failed = await session.execute(_FAIL_WITH_KEYS, values)
    await discard_objects(session, failed.scalars().all())


async def _discard_unless_published(session: WriteSession, attempt: Attempt) -> None:
    """Discard the object of an attempt that has lost its lease.

    If the connection was lost during a commit, the attempt may have published it.
    """
    if not (await session.execute(_IS_PUBLISHED, _key(attempt))).scalar_one():
        await discard_objects(session, [attempt.object_key])


def _key(attempt: Attempt) -> dict[str, object]:
    return {"export_id": attempt.export_id, "object_key": attempt.object_key}
