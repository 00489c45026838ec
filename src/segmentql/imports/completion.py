"""The end of imports that are applied: completed, or failed after several attempts."""

from sqlalchemy import text

from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import WriteSession
from segmentql.imports.attempts import MAX_ATTEMPTS
from segmentql.imports.audit_entries import audit_status
from segmentql.imports.jobs import ADVANCE_IMPORT, FINISH_IMPORT
from segmentql.imports.reads import lock_import
from segmentql.imports.records import ImportRecord
from segmentql.tables import ImportStatus

_FINISH = text("""
UPDATE imports SET
    status = CAST(:status AS import_status), finished_at = clock_timestamp(),
    next_attempt_at = NULL, failure = CAST(:failure AS text),
    removals = CASE WHEN removals IS NOT NULL THEN removed_users END
WHERE id = :import_id
""")

_NEXT_IMPORT_OF_SEGMENT = text("""
SELECT id FROM imports
WHERE segment_id = :segment_id AND status = 'APPLYING' AND id <> :import_id
ORDER BY queued_at, id LIMIT 1
""")

_RECORD_FAILURE = text("""
UPDATE imports SET
    attempts = attempts + 1,
    next_attempt_at = clock_timestamp() + make_interval(secs => least(2 ^ attempts, 15))
WHERE id = :import_id AND status = 'APPLYING'
RETURNING attempts
""")


async def finish(
    session: WriteSession,
    record: ImportRecord,
    status: ImportStatus,
    *,
    failure: str | None = None,
) -> None:
    """End an import, and send the messages for its result and for the segment's next import."""
    values = {"import_id": record.import_id, "segment_id": record.segment.segment_id}
    await session.execute(_FINISH, {**values, "status": status, "failure": failure})
    await audit_status(session, record.import_id)
    session.after_commit(Message(FINISH_IMPORT, (record.import_id,)))
    for import_id in (await session.execute(_NEXT_IMPORT_OF_SEGMENT, values)).scalars():
        session.after_commit(Message(ADVANCE_IMPORT, (import_id,)))


async def record_failure(
    session: WriteSession, import_id: int, reason: str, *, is_final: bool
) -> None:
    """Count a failed attempt to apply a chunk. After `MAX_ATTEMPTS` the import is FAILED.

    Args:
        session: The session.
        import_id: The import.
        reason: The failure that clients see.
        is_final: Whether further attempts would fail as well.
    """
    values = {"import_id": import_id}
    attempts = (await session.execute(_RECORD_FAILURE, values)).scalar_one_or_none()
    if attempts is None or (attempts < MAX_ATTEMPTS and not is_final):
        return
    record = await lock_import(session, import_id)
    await finish(session, record, ImportStatus.FAILED, failure=reason)
