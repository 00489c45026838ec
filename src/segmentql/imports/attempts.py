"""Attempts of workers to read the list of an import.

The import's row is its outbox. A worker claims the import for one attempt (`claim`), which has a
number and a lease. While the worker reads the list, it extends the lease. If the worker dies, the
lease ends, and another worker starts again. An attempt that has lost its lease stores nothing,
because each transaction checks the attempt under the lock of the import's row.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import text

from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.imports.audit_entries import audit_status
from segmentql.imports.jobs import ADVANCE_IMPORT, FINISH_IMPORT

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
    status = CASE WHEN attempts < :max_attempts
        THEN CAST('QUEUED' AS import_status) ELSE 'FAILED' END,
    failure = CASE WHEN attempts < :max_attempts THEN NULL ELSE CAST(:reason AS text) END,
    finished_at = CASE WHEN attempts < :max_attempts THEN NULL ELSE clock_timestamp() END,
    next_attempt_at = CASE WHEN attempts < :max_attempts
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
    values = {
        "import_id": import_id,
        "reason": f"the worker died in the last of {MAX_ATTEMPTS} attempts",
    }
    number = (await session.execute(_CLAIM, values)).scalar_one_or_none()
    if number is not None:
        return Attempt(import_id, number)
    if (await session.execute(_FAIL_ABANDONED, values)).one_or_none():
        await audit_status(session, import_id)
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
        "max_attempts": MAX_STORE_REJECTIONS if rejected_by_store else MAX_ATTEMPTS,
        "seconds": seconds,
        "reason": reason,
    }
    status = (await session.execute(_FAIL, values)).scalar_one_or_none()
    if status == "QUEUED":
        session.after_commit(Message(ADVANCE_IMPORT, (attempt.import_id,), delay_seconds=seconds))
    elif status == "FAILED":
        await audit_status(session, attempt.import_id)
        session.after_commit(Message(FINISH_IMPORT, (attempt.import_id,)))
    return status == "FAILED"


async def refuse(session: WriteSession, attempt: Attempt, *, reason: str) -> None:
    """Set the import to REFUSED, because its file cannot be used."""
    values = {"import_id": attempt.import_id, "number": attempt.number, "reason": reason}
    if (await session.execute(_REFUSE, values)).one_or_none():
        await audit_status(session, attempt.import_id)
        session.after_commit(Message(FINISH_IMPORT, (attempt.import_id,)))
