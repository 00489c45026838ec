"""Attempts of workers to make a file.

The file's row is its outbox. A worker claims a file for one attempt (`claim`), which has a number
and a lease. While the worker writes the file, it extends the lease every few seconds (`heartbeat`).
If the worker dies, the lease ends and another worker makes the next attempt. Each attempt writes an
object with its own random key, which identifies the attempt. Only the attempt that holds the lease
publishes its key. The objects of the other attempts are discarded, see `segmentql.objects`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic

from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import WriteSession
from segmentql.csv_files.file_kind import ContentT, FileKind, statement
from segmentql.errors import StoreUnavailable
from segmentql.objects import service as objects

MAX_ATTEMPTS: Final = 8
MAX_STORE_REJECTIONS: Final = 5
"""The number of attempts if the store rejects them, because then a person must change something."""

RETRY_SECONDS: Final = 1
"""The wait before the second attempt. It doubles with each further attempt."""

MAX_RETRY_SECONDS: Final = 15
"""The maximum wait. The waits of 8 attempts add up to 60 s, so a file survives an outage of the
store of about a minute."""

HEARTBEAT_SECONDS: Final = 3
LEASE_SECONDS: Final = 12
"""The time after the last heartbeat when the lease ends."""

_LEASE_END: Final = f"clock_timestamp() + make_interval(secs => {LEASE_SECONDS})"

_LOCK_TO_CLAIM: Final = "SELECT pg_advisory_xact_lock_shared({kind.key_erasure_lock}, 0)"
_LOCK_TO_ERASE_KEYS: Final = "SELECT pg_advisory_xact_lock({kind.key_erasure_lock}, 0)"

_CLAIM: Final = f"""
UPDATE {{kind.table}} SET
    status = 'RUNNING', attempts = attempts + 1, next_attempt_at = {_LEASE_END},
    object_key = '{{kind.table}}/' || gen_random_uuid() || {{kind.extension_sql}}
WHERE id = :file_id AND attempts < {MAX_ATTEMPTS}
  AND status IN ('QUEUED', 'RUNNING') AND next_attempt_at <= clock_timestamp()
RETURNING attempts, new.object_key, old.object_key AS old_object_key, {{kind.content_sql}}
"""

# A worker that died in its last attempt did not report the failure.
_FAIL_ABANDONED: Final = f"""
UPDATE {{kind.table}} SET
    status = 'FAILED', finished_at = clock_timestamp(), object_key = NULL, failure = :reason,
    next_attempt_at = {{kind.final_next_attempt_sql}}
WHERE id = :file_id AND attempts >= {MAX_ATTEMPTS} AND status = 'RUNNING'
  AND next_attempt_at <= clock_timestamp()
RETURNING old.object_key
"""

_OF_ATTEMPT: Final = "id = :file_id AND object_key = :object_key AND status = 'RUNNING'"

_HEARTBEAT: Final = (
    f"UPDATE {{kind.table}} SET next_attempt_at = {_LEASE_END} WHERE {_OF_ATTEMPT} RETURNING id"
)

_FINISH: Final = f"""
UPDATE {{kind.table}} SET
    status = 'READY', row_count = :row_count, size_bytes = :size_bytes,
    finished_at = clock_timestamp(), next_attempt_at = {{kind.final_next_attempt_sql}}
WHERE {_OF_ATTEMPT}
RETURNING extract(epoch FROM finished_at - {{kind.requested_at_sql}}) AS seconds
"""

_FAIL: Final = f"""
UPDATE {{kind.table}} SET
    status = CASE WHEN attempts < :allowed THEN CAST('QUEUED' AS report_status) ELSE 'FAILED' END,
    failure = CASE WHEN attempts < :allowed THEN NULL ELSE CAST(:reason AS text) END,
    finished_at = CASE WHEN attempts < :allowed THEN NULL ELSE clock_timestamp() END,
    next_attempt_at = CASE WHEN attempts < :allowed
        THEN clock_timestamp() + make_interval(secs => :seconds)
        ELSE {{kind.final_next_attempt_sql}} END,
    object_key = NULL
WHERE {_OF_ATTEMPT}
RETURNING status
"""

_IS_PUBLISHED: Final = """
SELECT EXISTS (SELECT FROM {kind.table} WHERE id = :file_id AND object_key = :object_key)
"""


@dataclass(frozen=True, slots=True)
class Attempt(Generic[ContentT]):
    """One attempt to make a file. It holds a lease of the file's row."""

    kind: FileKind[ContentT]
    file_id: int
    number: int
    """The number of the attempt, from 1."""
    object_key: str
    content: ContentT


async def claim(
    session: WriteSession, kind: FileKind[ContentT], file_id: int
) -> Attempt[ContentT] | None:
    """Claim a file for an attempt; return None if it is not due or another attempt holds it.

    If the worker of the last attempt died, the file is marked as FAILED.
    """
    await session.execute(statement(_LOCK_TO_CLAIM, kind))
    values = {"file_id": file_id, "reason": f"the worker died in each of {MAX_ATTEMPTS} attempts"}
    row = (await session.execute(statement(_CLAIM, kind), {"file_id": file_id})).one_or_none()
    if row is None:
        failed = await session.execute(statement(_FAIL_ABANDONED, kind), values)
        await discard_objects(session, kind, [failed.scalar_one_or_none()])
        return None
    # The last attempt may still be alive. If it is not, it left perhaps a part of its file.
    await discard_objects(session, kind, [row.old_object_key])
    await objects.begin_upload(session, row.object_key, max_seconds=kind.max_upload_seconds)
    return Attempt(kind, file_id, row.attempts, row.object_key, kind.read_content(row))


async def wait_for_claims(session: WriteSession, kind: FileKind[Any]) -> None:
    """Wait for transactions that claim files. New ones wait until this transaction ends.

    A transaction that erases keys calls it before it changes the files that may have the keys. Each
    attempt then starts either before that change, which ends its lease, or after the commit.
    """
    await session.execute(statement(_LOCK_TO_ERASE_KEYS, kind))


async def discard_objects(
    session: WriteSession, kind: FileKind[Any], object_keys: Sequence[str | None]
) -> None:
    """Discard the objects of attempts, which may still be written. None is ignored."""
    await objects.discard(
        session, [key for key in object_keys if key], max_write_seconds=kind.max_upload_seconds
    )


async def discard_unless_published(session: WriteSession, attempt: Attempt[Any]) -> None:
    """Discard the object of an attempt that has lost its lease.

    If the connection was lost during a commit, the attempt may have published it.
    """
    published = await session.execute(statement(_IS_PUBLISHED, attempt.kind), _identity(attempt))
    if not published.scalar_one():
        await discard_objects(session, attempt.kind, [attempt.object_key])


async def heartbeat(session: WriteSession, attempt: Attempt[Any]) -> bool:
    """Extend the lease of an attempt; return whether the attempt still holds it."""
    extended = await session.execute(statement(_HEARTBEAT, attempt.kind), _identity(attempt))
    return extended.one_or_none() is not None


async def finish(
    session: WriteSession, attempt: Attempt[Any], *, row_count: int, size_bytes: int
) -> float | None:
    """Publish the file of an attempt if the attempt still holds its lease.

    Returns:
        The seconds from the request for the file (see `FileKind.requested_at_sql`) to now; None if
        the attempt has lost its lease. Its object is then discarded.

    Raises:
        StoreUnavailable: the upload took so much time that its object is being deleted.
    """
    values = {**_identity(attempt), "row_count": row_count, "size_bytes": size_bytes}
    row = (await session.execute(statement(_FINISH, attempt.kind), values)).one_or_none()
    if row is None:
        await discard_unless_published(session, attempt)
        return None
    if not await objects.keep_upload(session, attempt.object_key):
        raise StoreUnavailable("the upload took too long")
    return float(row.seconds)


async def fail(
    session: WriteSession, attempt: Attempt[Any], *, reason: str, max_attempts: int = MAX_ATTEMPTS
) -> bool:
    """Record that an attempt failed, and enqueue the next one unless it was the last.

    The object of the attempt is discarded. If the attempt has lost its lease, nothing else happens.

    Args:
        session: The session.
        attempt: The attempt.
        reason: The failure that clients see if it was the last attempt.
        max_attempts: The number of attempts after which the file has failed.

    Returns:
        Whether the file failed permanently.
    """
    seconds = min(RETRY_SECONDS * 2 ** (attempt.number - 1), MAX_RETRY_SECONDS)
    values = {
        **_identity(attempt),
        "allowed": max_attempts,
        "seconds": seconds,
        "reason": reason,
    }
    row = (await session.execute(statement(_FAIL, attempt.kind), values)).one_or_none()
    if row is None:
        await discard_unless_published(session, attempt)
        return False
    await discard_objects(session, attempt.kind, [attempt.object_key])
    if row.status == "QUEUED":
        session.after_commit(Message(attempt.kind.job, (attempt.file_id,), delay_seconds=seconds))
        return False
    return True


def _identity(attempt: Attempt[Any]) -> dict[str, object]:
    return {"file_id": attempt.file_id, "object_key": attempt.object_key}
