"""The audit entries of imports."""

from typing import Final

from segmentql.adapters.sessions import WriteSession
from segmentql.audit import service as audit
from segmentql.audit.records import AuditAction
from segmentql.imports.reads import lock_import
from segmentql.imports.records import ImportRecord
from segmentql.principal import NO_ACTOR, Actor
from segmentql.tables import ImportStatus

_ACTIONS: Final = {
    ImportStatus.HELD: AuditAction.IMPORT_HELD,
    ImportStatus.COMPLETED: AuditAction.IMPORT_COMPLETED,
    ImportStatus.REFUSED: AuditAction.IMPORT_REFUSED,
    ImportStatus.FAILED: AuditAction.IMPORT_FAILED,
}


async def audit_status(session: WriteSession, import_id: int) -> None:
    """Record in the audit log that a worker held or ended an import, without an actor."""
    record = await lock_import(session, import_id)
    await audit_step(session, record, _ACTIONS[record.status], NO_ACTOR, after=record)


async def audit_step(
    session: WriteSession,
    record: ImportRecord,
    action: AuditAction,
    actor: Actor,
    *,
    before: ImportRecord | None = None,
    after: ImportRecord,
) -> None:
    """Record a step of an import in the audit log."""
    await audit.record(
        session,
        actor=actor,
        action=action,
        target=record.global_id,
        segment_id=record.segment.segment_id,
        before=before.audit_state if before else None,
        after=after.audit_state,
    )
