"""The events of rollouts: each plan, pause, resumption, cancellation and failure.

`rollouts` and `rollout_stages` have only the current plan. The events are for `explain` and
support. They are append-only: the service's role cannot change or delete an event. Each event also
has an entry in the audit log.
"""

from typing import Final

from sqlalchemy import text

from segmentql.adapters.sessions import WriteSession
from segmentql.audit import service as audit
from segmentql.audit.records import AuditAction
from segmentql.principal import Actor
from segmentql.rollouts.records import RolloutRecord
from segmentql.tables import RolloutEvent

_RECORD_EVENT: Final = text("""
INSERT INTO rollout_events (
    segment_id, at, event, actor, api_key_id, state, enroll_new_users, expires_at, paused_at,
    failure, percents, start_times
)
SELECT r.segment_id, clock_timestamp(), CAST(:event AS rollout_event), CAST(:actor AS text),
    CAST(:api_key_id AS text), r.state, r.enroll_new_users, r.expires_at, r.paused_at, r.failure,
    stages.percents, stages.start_times
FROM rollouts r
CROSS JOIN LATERAL (
    SELECT array_agg(percent ORDER BY number) AS percents,
        array_agg(starts_at ORDER BY number) AS start_times
    FROM rollout_stages WHERE rollout_stages.segment_id = r.segment_id
) AS stages
WHERE r.segment_id = :segment_id
""")

_AUDIT_ACTIONS: Final = {
    RolloutEvent.SET: AuditAction.ROLLOUT_SET,
    RolloutEvent.PAUSED: AuditAction.ROLLOUT_PAUSED,
    RolloutEvent.RESUMED: AuditAction.ROLLOUT_RESUMED,
    RolloutEvent.CANCELLED: AuditAction.ROLLOUT_CANCELLED,
    RolloutEvent.FAILED: AuditAction.ROLLOUT_FAILED,
}


async def record_event(
    session: WriteSession,
    event: RolloutEvent,
    *,
    before: RolloutRecord | None,
    after: RolloutRecord,
    actor: Actor,
) -> None:
    """Record an event and its audit entry, in the transaction that changed the rollout.

    The transaction holds the lock of the rollout, so the events of one rollout are in order.

    Args:
        session: The session of the change.
        event: The event. The rollout is recorded as it is now.
        before: The rollout before the change; None if the segment had none.
        after: The rollout after the change.
        actor: The author of the change.
    """
    await session.execute(
        _RECORD_EVENT,
        {
            "segment_id": after.segment_id,
            "event": event,
            "actor": actor.name,
            "api_key_id": actor.api_key_id,
        },
    )
    await audit.record(
        session,
        actor=actor,
        action=_AUDIT_ACTIONS[event],
        target=after.global_id,
        segment_id=after.segment_id,
        before=before.audit_state if before else None,
        after=after.audit_state,
    )
