"""The log of rollouts: each plan, pause, resumption, cancellation and failure.

`rollouts` and `rollout_stages` have only the current plan. The log is for `explain` and support. It
is append-only: the service's role cannot change or delete an entry.
"""

from typing import Final

from sqlalchemy import text

from segmentql.adapters.database import WriteSession
from segmentql.principal import Actor
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


async def record_event(
    session: WriteSession, segment_id: int, event: RolloutEvent, *, actor: Actor
) -> None:
    """Record an event with the rollout as it is now, in the transaction that changed it.

    The transaction holds the lock of the rollout, so the events of one rollout are in order.
    """
    await session.execute(
        _RECORD_EVENT,
        {
            "segment_id": segment_id,
            "event": event,
            "actor": actor.name,
            "api_key_id": actor.api_key_id,
        },
    )
