"""Operations on rollouts: set, pause, resume and cancel a plan, also with its segment.

Each locks the segment, then the rollout's row.
"""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import text

from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import WriteSession
from segmentql.errors import MutationRejected, RolloutNotFound, RolloutStateConflict
from segmentql.principal import Actor
from segmentql.rollouts.event_log import record_event
from segmentql.rollouts.jobs import ADVANCE_ROLLOUT
from segmentql.rollouts.messages import enqueue_expiry, enqueue_stage_starts
from segmentql.rollouts.plan import Plan, schedule
from segmentql.rollouts.reads import lock_rollout, read_rollout
from segmentql.rollouts.records import RolloutRecord
from segmentql.segments import service as segments
from segmentql.segments.records import SegmentRecord
from segmentql.tables import PassPhase, RolloutEvent, RolloutState

_READ_CLOCK = text("SELECT clock_timestamp()")

_DELETE_STAGES = text("DELETE FROM rollout_stages WHERE segment_id = :segment_id")

_UPSERT_ROLLOUT = text("""
INSERT INTO rollouts AS r (
    segment_id, state, enroll_new_users, expires_at, actor, api_key_id, max_percent, pass_number,
    phase, stage,
    percent, removes_members, last_insert_seq, bound_hash, bound_user_id, cursor_user_id,
    users_total, users_seen, heartbeat_at
) VALUES (
    :segment_id, 'ACTIVE', :enroll_new_users, :expires_at, :actor, :api_key_id, :max_percent, 1,
    CAST(:phase AS pass_phase), :stage, 0, false, 0, -1, 0, 0, 0, 0, clock_timestamp()
)
ON CONFLICT (segment_id) DO UPDATE SET
    state = excluded.state, enroll_new_users = excluded.enroll_new_users,
    expires_at = excluded.expires_at, actor = excluded.actor, api_key_id = excluded.api_key_id,
    max_percent = excluded.max_percent,
    pass_number = r.pass_number + 1, phase = excluded.phase, stage = excluded.stage, percent = 0,
    paused_at = NULL, started_at = NULL, finished_at = NULL, failure = NULL, failures = 0,
    users_total = 0, users_seen = 0, heartbeat_at = excluded.heartbeat_at
""")

_INSERT_STAGES = text("""
INSERT INTO rollout_stages (segment_id, number, percent, starts_at)
SELECT :segment_id, number, percent, starts_at
FROM unnest(CAST(:percents AS numeric[]), CAST(:start_times AS timestamptz[]))
    WITH ORDINALITY AS stage (percent, starts_at, number)
""")

_PAUSE_ROLLOUT = text("""
UPDATE rollouts SET state = 'PAUSED', paused_at = clock_timestamp() WHERE segment_id = :segment_id
""")

# Resuming delays the stages that had not started by the length of the pause. A rollout that failed
# while it was withdrawing continues to withdraw.
_RESUME_ROLLOUT = text("""
WITH resumed AS (
    UPDATE rollouts
    SET state = CASE WHEN state = 'FAILED' AND paused_at IS NOT NULL
            THEN CAST('WITHDRAWING' AS rollout_state) ELSE 'ACTIVE' END,
        paused_at = CASE WHEN state = 'FAILED' THEN paused_at END,
        failure = NULL, failures = 0, heartbeat_at = clock_timestamp()
    WHERE segment_id = :segment_id
    RETURNING CASE WHEN old.state = 'PAUSED' THEN old.paused_at END AS paused_at,
        new.heartbeat_at AS at
)
UPDATE rollout_stages SET starts_at = starts_at + (resumed.at - resumed.paused_at)
FROM resumed WHERE segment_id = :segment_id AND starts_at > resumed.paused_at
""")

# Cancelling a paused rollout keeps its schedule frozen, so that no delayed stage comes into force.
_CANCEL_ROLLOUT = text("""
UPDATE rollouts
SET state = 'CANCELLED', paused_at = coalesce(paused_at, moment.at), finished_at = moment.at,
    failure = NULL, max_percent = :max_percent
FROM (SELECT clock_timestamp() AS at OFFSET 0) AS moment
WHERE segment_id = :segment_id
""")

# Reads already see that the segment is deleted. This excludes the rollout from searches for work.
_STOP_ROLLOUT = text("""
UPDATE rollouts
SET state = 'CANCELLED', paused_at = coalesce(paused_at, moment.at),
    finished_at = coalesce(finished_at, moment.at), failure = NULL
FROM (SELECT clock_timestamp() AS at OFFSET 0) AS moment
WHERE segment_id = :segment_id AND state <> 'CANCELLED'
""")

_WITHDRAW_ROLLOUT = text("""
UPDATE rollouts
SET state = 'WITHDRAWING', paused_at = coalesce(paused_at, clock_timestamp()), finished_at = NULL,
    failure = NULL, failures = 0, max_percent = :max_percent,
    pass_number = pass_number + 1, phase = 'DUE',
    heartbeat_at = clock_timestamp()
WHERE segment_id = :segment_id
""")


async def create_segment_with_rollout(
    session: WriteSession,
    *,
    slug: str,
    name: str | None,
    description: str | None,
    plan: Plan | None,
    actor: Actor,
) -> SegmentRecord:
    """Create a segment, and start its rollout if `plan` is set.

    Raises:
        MutationRejected: another segment has the slug, or the plan's times are invalid.
    """
    segment = await segments.create_segment(
        session, slug=slug, name=name, description=description, actor=actor
    )
    if plan:
        await start_rollout(session, segment_id=segment.segment_id, plan=plan, actor=actor)
    return segment


async def delete_segment_with_rollout(
    session: WriteSession, *, slug: str, expected_version: int | None, actor: Actor
) -> int:
    """Delete a segment and cancel its rollout, if any; return the segment's id.

    Raises:
        MutationRejected: the segment does not exist or has another version.
    """
    segment = await segments.lock_segment_to_delete(
        session, slug=slug, expected_version=expected_version
    )
    rollout = await lock_rollout(session, segment.segment_id)
    await segments.delete_segment(
        session, segment, rollout=rollout.audit_state if rollout else None, actor=actor
    )
    if rollout:
        await session.execute(_STOP_ROLLOUT, {"segment_id": segment.segment_id})
    return segment.segment_id


async def set_rollout(
    session: WriteSession,
    *,
    slug: str,
    plan: Plan,
    expected_version: int | None,
    actor: Actor,
) -> tuple[SegmentRecord, RolloutRecord]:
    """Replace a segment's plan, whatever the status of the previous one.

    Returns:
        The segment and the rollout.

    Raises:
        MutationRejected: the segment does not exist or has another version, or the plan's times
            are invalid.
    """
    segment = await segments.lock_segment(session, slug=slug, expected_version=expected_version)
    rollout = await start_rollout(session, segment_id=segment.segment_id, plan=plan, actor=actor)
    return await segments.bump_version(session, segment.segment_id, actor=actor), rollout


async def start_rollout(
    session: WriteSession, *, segment_id: int, plan: Plan, actor: Actor
) -> RolloutRecord:
    """Set the plan of a segment that this transaction has created or locked.

    Raises:
        MutationRejected: the plan's times are invalid.
    """
    previous = await lock_rollout(session, segment_id)
    now: datetime = (await session.execute(_READ_CLOCK)).scalar_one()
    start_times = schedule(plan, now)
    max_percent = previous.highest_percent(up_to_stage=previous.current) if previous else Decimal(0)
    # Before the first stage, the only possible work is to remove members of the previous plan.
    has_work = start_times[0] <= now or max_percent > 0
    await session.execute(_DELETE_STAGES, {"segment_id": segment_id})
    await session.execute(
        _UPSERT_ROLLOUT,
        {
            "segment_id": segment_id,
            "enroll_new_users": plan.enroll_new_users,
            "expires_at": plan.expires_at,
            "actor": actor.name,
            "api_key_id": actor.api_key_id,
            "max_percent": max_percent,
            "phase": PassPhase.DUE if has_work else PassPhase.DONE,
            "stage": -1 if has_work else 0,
        },
    )
    await session.execute(
        _INSERT_STAGES,
        {
            "segment_id": segment_id,
            "percents": [stage.percent for stage in plan.stages],
            "start_times": start_times,
        },
    )
    rollout = await _enqueue_due_jobs(session, segment_id)
    await record_event(session, RolloutEvent.SET, before=previous, after=rollout, actor=actor)
    return rollout


async def pause_rollout(
    session: WriteSession, *, slug: str, actor: Actor
) -> tuple[SegmentRecord, RolloutRecord]:
    """Pause a rollout: stop the pass after its current chunk, and freeze the schedule.

    Raises:
        MutationRejected: the segment or rollout does not exist, or its status does not allow a
            pause.
    """
    segment, rollout = await _lock_segment_and_rollout(session, slug)
    if rollout.status not in {"SCHEDULED", "RUNNING", "WAITING"}:
        raise MutationRejected(RolloutStateConflict(("slug",), rollout.status))
    await session.execute(_PAUSE_ROLLOUT, {"segment_id": segment.segment_id})
    paused = await read_rollout(session, segment.segment_id)
    await record_event(session, RolloutEvent.PAUSED, before=rollout, after=paused, actor=actor)
    return segment, paused


async def resume_rollout(
    session: WriteSession, *, slug: str, actor: Actor
) -> tuple[SegmentRecord, RolloutRecord]:
    """Continue a rollout that is paused or has failed.

    Raises:
        MutationRejected: the segment or rollout does not exist, or is neither paused nor failed.
    """
    segment, rollout = await _lock_segment_and_rollout(session, slug)
    if rollout.state not in {RolloutState.PAUSED, RolloutState.FAILED}:
        raise MutationRejected(RolloutStateConflict(("slug",), rollout.status))
    await session.execute(_RESUME_ROLLOUT, {"segment_id": segment.segment_id})
    resumed = await _enqueue_due_jobs(session, segment.segment_id)
    await record_event(session, RolloutEvent.RESUMED, before=rollout, after=resumed, actor=actor)
    return segment, resumed


async def cancel_rollout(
    session: WriteSession, *, slug: str, withdraw: bool, actor: Actor
) -> tuple[SegmentRecord, RolloutRecord]:
    """Stop a rollout permanently.

    Args:
        withdraw: Whether to remove the members that the rollout added; otherwise they stay.

    Raises:
        MutationRejected: the segment or rollout does not exist, or the rollout is already
            cancelled or withdrawing.
    """
    segment, rollout = await _lock_segment_and_rollout(session, slug)
    if rollout.state in {RolloutState.CANCELLED, RolloutState.WITHDRAWING}:
        raise MutationRejected(RolloutStateConflict(("slug",), rollout.status))
    max_percent = rollout.highest_percent(up_to_stage=rollout.current)
    await session.execute(
        _WITHDRAW_ROLLOUT if withdraw else _CANCEL_ROLLOUT,
        {"segment_id": segment.segment_id, "max_percent": max_percent},
    )
    cancelled = await _enqueue_due_jobs(session, segment.segment_id)
    await record_event(
        session, RolloutEvent.CANCELLED, before=rollout, after=cancelled, actor=actor
    )
    return segment, cancelled


async def _lock_segment_and_rollout(
    session: WriteSession, slug: str
) -> tuple[SegmentRecord, RolloutRecord]:
    segment = await segments.lock_segment(session, slug=slug)
    rollout = await lock_rollout(session, segment.segment_id)
    if rollout is None:
        raise MutationRejected(RolloutNotFound(("slug",), slug))
    return segment, rollout


async def _enqueue_due_jobs(session: WriteSession, segment_id: int) -> RolloutRecord:
    """Enqueue the jobs that are due now or within a minute; return the rollout."""
    rollout = await read_rollout(session, segment_id)
    if rollout.work_due:
        session.after_commit(Message(ADVANCE_ROLLOUT, (segment_id,)))
    if rollout.state == RolloutState.ACTIVE:
        enqueue_stage_starts(session, rollout)
        enqueue_expiry(session, rollout)
    return rollout
