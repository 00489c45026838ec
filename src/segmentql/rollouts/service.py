"""What people do to a rollout, and what they read of it.

The row says what was decided and how far a pass is; what is in force, a rollout's status and its
stages' follow from that, the schedule and PostgreSQL's clock, whether or not a worker came by.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Row, text

from segmentql.adapters.database import ReadSession, WriteSession
from segmentql.adapters.jobs import (
    ADVANCE_ROLLOUT,
    END_DUE_MEMBERSHIPS,
    MAX_DELAY_SECONDS,
    START_ROLLOUT_STAGE,
    Message,
)
from segmentql.errors import Refused, RolloutNotFound, RolloutStateConflict
from segmentql.rollouts.plan import Plan, starts
from segmentql.segments import service as segments
from segmentql.tables import PassPhase, RolloutState

_WITHDRAWN: Final = """
(r.state = 'WITHDRAWING' OR r.state = 'FAILED' AND r.held_at IS NOT NULL
    OR r.state = 'CANCELLED' AND r.reach = 0)
"""
_EXPIRED: Final = "coalesce(r.expires_at <= statement_timestamp(), false)"

WORK_DUE: Final = f"""
(s.deleted_at IS NULL AND (r.state = 'WITHDRAWING' OR r.state = 'ACTIVE' AND (
    r.phase <> 'DONE' OR schedule.current > r.stage AND NOT {_EXPIRED})))
"""
"""Whether there is something for a worker to do."""

# The schedule's clock stands still while the rollout is paused, and once it is stopped.
FROM_ROLLOUTS: Final = """
FROM rollouts r
JOIN segments s ON s.id = r.segment_id
CROSS JOIN LATERAL (
    SELECT
        CAST(count(*) FILTER (WHERE starts_at <= coalesce(
            least(r.held_at, s.deleted_at), statement_timestamp())) AS integer) AS current,
        array_agg(percent ORDER BY number) AS percents,
        array_agg(starts_at ORDER BY number) AS starts,
        array_agg(done_at ORDER BY number) AS dones
    FROM rollout_stages WHERE rollout_stages.segment_id = r.segment_id
) AS schedule
"""

ROLLOUT_COLUMNS: Final = f"""
r.segment_id, r.state, r.enroll_new_users, r.expires_at, r.actor, r.started_at, r.finished_at,
r.failure, r.reach, r.pass_number, r.phase, r.stage, r.percent AS pass_percent, r.takes_out,
r.last_arrival, r.bound_hash, r.bound_user_id, r.cursor_user_id,
schedule.current, schedule.percents, schedule.starts, schedule.dones,
statement_timestamp() AS read_at, {_EXPIRED} AS expired,
{WORK_DUE} AS work_due,
CASE WHEN s.deleted_at IS NOT NULL THEN 'CANCELLED'
     WHEN r.state <> 'ACTIVE' THEN CAST(r.state AS text)
     WHEN {WORK_DUE} THEN 'RUNNING'
     WHEN {_EXPIRED} OR schedule.current = cardinality(schedule.percents) THEN 'COMPLETED'
     WHEN schedule.current = 0 THEN 'SCHEDULED'
     ELSE 'WAITING' END AS status,
CASE WHEN schedule.current = 0 OR s.deleted_at IS NOT NULL OR {_WITHDRAWN} THEN 0
     ELSE schedule.percents[schedule.current] END AS percent,
{_WITHDRAWN} AS withdrawn,
CASE WHEN r.stage = schedule.current AND r.phase IN ('WORKING', 'DONE')
     THEN r.users_total ELSE 0 END AS users_total,
CASE WHEN r.stage = schedule.current AND r.phase IN ('WORKING', 'DONE')
     THEN r.users_seen ELSE 0 END AS users_seen,
CASE WHEN r.stage <> schedule.current OR r.phase NOT IN ('WORKING', 'DONE') THEN 0
     WHEN r.phase = 'DONE' AND r.stage > 0 THEN 1
     ELSE coalesce(r.users_seen / nullif(CAST(r.users_total AS double precision), 0), 0)
     END AS progress
"""
"""What the GraphQL type and the workers need of a rollout, in statements with `FROM_ROLLOUTS`."""

_BY_SEGMENTS = text(f"""
SELECT {ROLLOUT_COLUMNS} {FROM_ROLLOUTS} WHERE r.segment_id = ANY(:segment_ids)
""")

STATUSES: Final = (
    *("SCHEDULED", "RUNNING", "WAITING", "PAUSED", "COMPLETED", "WITHDRAWING", "CANCELLED"),
    "FAILED",
)
"""What `status` may be."""

_STATUSES = text(f"""
SELECT status, count(*) AS number
FROM (SELECT {ROLLOUT_COLUMNS} {FROM_ROLLOUTS} WHERE s.deleted_at IS NULL) AS rollouts
GROUP BY status
""")

_PASSES = text(f"""
SELECT slug, progress
FROM (SELECT s.slug, {ROLLOUT_COLUMNS} {FROM_ROLLOUTS} WHERE s.deleted_at IS NULL) AS rollouts
WHERE status IN ('RUNNING', 'WITHDRAWING')
ORDER BY started_at DESC NULLS LAST, segment_id DESC LIMIT :at_most
""")

_COUNTS = text("""
SELECT asked.segment_id, (
    SELECT count(*) FROM memberships m JOIN segments s ON s.id = m.segment_id
    WHERE m.segment_id = asked.segment_id AND m.cause = 'ROLLOUT' AND s.deleted_at IS NULL
      AND (m.expires_at IS NULL OR m.expires_at > now())
) AS enrolled, (
    SELECT count(*) FROM exclusions e JOIN segments s ON s.id = e.segment_id
    WHERE e.segment_id = asked.segment_id AND s.deleted_at IS NULL
) AS excluded
FROM unnest(CAST(:segment_ids AS bigint[])) AS asked (segment_id)
""")

_LOCK = text("SELECT segment_id FROM rollouts WHERE segment_id = :segment_id FOR NO KEY UPDATE")

_CLOCK = text("SELECT clock_timestamp()")

_FORGET_STAGES = text("DELETE FROM rollout_stages WHERE segment_id = :segment_id")

_SET = text("""
INSERT INTO rollouts AS r (
    segment_id, state, enroll_new_users, expires_at, actor, reach, pass_number, phase, stage,
    percent, takes_out, last_arrival, bound_hash, bound_user_id, cursor_user_id, users_total,
    users_seen, touched_at
) VALUES (
    :segment_id, 'ACTIVE', :enroll_new_users, :expires_at, :actor, :reach, 1,
    CAST(:phase AS pass_phase), :stage, 0, false, 0, -1, 0, 0, 0, 0, clock_timestamp()
)
ON CONFLICT (segment_id) DO UPDATE SET
    state = excluded.state, enroll_new_users = excluded.enroll_new_users,
    expires_at = excluded.expires_at, actor = excluded.actor, reach = excluded.reach,
    pass_number = r.pass_number + 1, phase = excluded.phase, stage = excluded.stage, percent = 0,
    held_at = NULL, started_at = NULL, finished_at = NULL, failure = NULL, failures = 0,
    users_total = 0, users_seen = 0, touched_at = excluded.touched_at
""")

_ADD_STAGES = text("""
INSERT INTO rollout_stages (segment_id, number, percent, starts_at)
SELECT :segment_id, number, percent, starts_at
FROM unnest(CAST(:percents AS numeric[]), CAST(:starts AS timestamptz[]))
    WITH ORDINALITY AS stage (percent, starts_at, number)
""")

_PAUSE = text("""
UPDATE rollouts SET state = 'PAUSED', held_at = clock_timestamp() WHERE segment_id = :segment_id
""")

# What was ahead when the clock was stopped is as far ahead when it goes on. What failed while it
# was withdrawing goes on withdrawing.
_RESUME = text("""
WITH resumed AS (
    UPDATE rollouts
    SET state = CASE WHEN state = 'FAILED' AND held_at IS NOT NULL
            THEN CAST('WITHDRAWING' AS rollout_state) ELSE 'ACTIVE' END,
        held_at = CASE WHEN state = 'FAILED' THEN held_at END,
        failure = NULL, failures = 0, touched_at = clock_timestamp()
    WHERE segment_id = :segment_id
    RETURNING CASE WHEN old.state = 'PAUSED' THEN old.held_at END AS held_at,
        new.touched_at AS at
)
UPDATE rollout_stages SET starts_at = starts_at + (resumed.at - resumed.held_at)
FROM resumed WHERE segment_id = :segment_id AND starts_at > resumed.held_at
""")

# What a pause kept from coming does not come by stopping for good: the clock stands where it stood.
_CANCEL = text("""
UPDATE rollouts
SET state = 'CANCELLED', held_at = coalesce(held_at, moment.at), finished_at = moment.at,
    failure = NULL, reach = :reach
FROM (SELECT clock_timestamp() AS at OFFSET 0) AS moment
WHERE segment_id = :segment_id
""")

# Its readers find the segment deleted; this keeps it from those who look for what to do.
_STOP = text("""
UPDATE rollouts
SET state = 'CANCELLED', held_at = coalesce(held_at, moment.at),
    finished_at = coalesce(finished_at, moment.at), failure = NULL
FROM (SELECT clock_timestamp() AS at OFFSET 0) AS moment
WHERE segment_id = :segment_id AND state <> 'CANCELLED'
""")

_WITHDRAW = text("""
UPDATE rollouts
SET state = 'WITHDRAWING', held_at = coalesce(held_at, clock_timestamp()), finished_at = NULL,
    failure = NULL, failures = 0, reach = :reach, pass_number = pass_number + 1, phase = 'DUE',
    touched_at = clock_timestamp()
WHERE segment_id = :segment_id
""")


async def set_rollout(
    session: WriteSession,
    *,
    slug: str,
    plan: Plan,
    expected_version: int | None,
    actor: str | None,
) -> tuple[Row[Any], Row[Any]]:
    """Replace a segment's plan, whatever became of the one before; its segment and its rollout.

    Raises:
        Refused: no such segment, not at the expected version, or times that do not fit.
    """
    segment = await segments.lock_segment(session, slug=slug, expected_version=expected_version)
    rollout = await start_rollout(session, segment_id=segment.segment_id, plan=plan, actor=actor)
    return await segments.count_change(session, segment.segment_id), rollout


async def start_rollout(
    session: WriteSession, *, segment_id: int, plan: Plan, actor: str | None
) -> Row[Any]:
    """Give a plan to a segment that this transaction has made or locked.

    Raises:
        Refused: times that do not fit.
    """
    before = await _locked(session, segment_id)
    now: datetime = (await session.execute(_CLOCK)).scalar_one()
    moments = starts(plan, now)
    reach = _reach(before) if before else Decimal(0)
    # With nobody to put in yet and nobody to take out, there is nothing to do before stage 1.
    has_work = moments[0] <= now or reach > 0
    await session.execute(_FORGET_STAGES, {"segment_id": segment_id})
    await session.execute(
        _SET,
        {
            "segment_id": segment_id,
            "enroll_new_users": plan.enroll_new_users,
            "expires_at": plan.expires_at,
            "actor": actor,
            "reach": reach,
            "phase": PassPhase.DUE if has_work else PassPhase.DONE,
            "stage": -1 if has_work else 0,
        },
    )
    await session.execute(
        _ADD_STAGES,
        {
            "segment_id": segment_id,
            "percents": [stage.percent for stage in plan.stages],
            "starts": moments,
        },
    )
    return await _announced(session, segment_id)


async def pause_rollout(session: WriteSession, *, slug: str) -> tuple[Row[Any], Row[Any]]:
    """Hold a rollout: the pass under way, within a chunk, and the stages ahead.

    Raises:
        Refused: no such segment or rollout, or it is neither under way nor ahead.
    """
    segment, rollout = await _found(session, slug)
    if rollout.status not in {"SCHEDULED", "RUNNING", "WAITING"}:
        raise Refused(RolloutStateConflict(("slug",), rollout.status))
    await session.execute(_PAUSE, {"segment_id": segment.segment_id})
    return segment, await _read(session, segment.segment_id)


async def resume_rollout(session: WriteSession, *, slug: str) -> tuple[Row[Any], Row[Any]]:
    """Go on where a rollout was paused, or where it failed.

    Raises:
        Refused: no such segment or rollout, or it is neither paused nor failed.
    """
    segment, rollout = await _found(session, slug)
    if rollout.state not in {RolloutState.PAUSED, RolloutState.FAILED}:
        raise Refused(RolloutStateConflict(("slug",), rollout.status))
    await session.execute(_RESUME, {"segment_id": segment.segment_id})
    return segment, await _announced(session, segment.segment_id)


async def cancel_rollout(
    session: WriteSession, *, slug: str, withdraw: bool
) -> tuple[Row[Any], Row[Any]]:
    """Stop a rollout for good; who is in stays, or with `withdraw` those it brought in leave.

    Raises:
        Refused: no such segment or rollout, or it is cancelled already.
    """
    segment, rollout = await _found(session, slug)
    if rollout.state in {RolloutState.CANCELLED, RolloutState.WITHDRAWING}:
        raise Refused(RolloutStateConflict(("slug",), rollout.status))
    await session.execute(
        _WITHDRAW if withdraw else _CANCEL,
        {"segment_id": segment.segment_id, "reach": _reach(rollout)},
    )
    return segment, await _announced(session, segment.segment_id)


async def stop_rollout(session: WriteSession, segment_id: int) -> None:
    """End the rollout of a segment, if it has one, in the transaction that deletes the segment."""
    await session.execute(_STOP, {"segment_id": segment_id})


def _reach(rollout: Row[Any]) -> Decimal:
    """The highest percent somebody may be in for: new users join for stages no pass was for."""
    passed_over = rollout.percents[max(rollout.stage, 0) : rollout.current]
    reach: Decimal = max([rollout.reach, *passed_over])
    return reach


async def _found(session: WriteSession, slug: str) -> tuple[Row[Any], Row[Any]]:
    segment = await segments.lock_segment(session, slug=slug)
    rollout = await _locked(session, segment.segment_id)
    if rollout is None:
        raise Refused(RolloutNotFound(("slug",), slug))
    return segment, rollout


async def _locked(session: WriteSession, segment_id: int) -> Row[Any] | None:
    # Two statements: one sees what was committed when it began, which is before it had the lock.
    if (await session.execute(_LOCK, {"segment_id": segment_id})).one_or_none() is None:
        return None
    return await _read(session, segment_id)


async def _read(session: WriteSession, segment_id: int) -> Row[Any]:
    return (await session.execute(_BY_SEGMENTS, {"segment_ids": [segment_id]})).one()


async def _announced(session: WriteSession, segment_id: int) -> Row[Any]:
    rollout = await _read(session, segment_id)
    if rollout.work_due:
        session.after_commit(Message(ADVANCE_ROLLOUT, (segment_id,)))
    if rollout.state == RolloutState.ACTIVE:
        announce_stages(session, rollout)
        announce_end(session, rollout)
    return rollout


def announce_stages(session: WriteSession, rollout: Row[Any]) -> None:
    """Have a message come when each stage starts that is due within a minute."""
    for start in rollout.starts[rollout.current :]:
        delay = (start - rollout.read_at).total_seconds()
        if delay <= MAX_DELAY_SECONDS:
            session.after_commit(
                Message(START_ROLLOUT_STAGE, (rollout.segment_id,), delay_seconds=max(delay, 0))
            )


def announce_end(session: WriteSession, rollout: Row[Any]) -> None:
    """Have a message come when the memberships end, if that is within a minute."""
    if rollout.expires_at is None:
        return
    delay = (rollout.expires_at - rollout.read_at).total_seconds()
    if 0 < delay <= MAX_DELAY_SECONDS:
        session.after_commit(Message(END_DUE_MEMBERSHIPS, delay_seconds=delay))


async def rollouts_by_segment(
    session: ReadSession, segment_ids: Sequence[int]
) -> dict[int, Row[Any]]:
    """Read the rollouts of segments; those without: absent."""
    rows = await session.execute(_BY_SEGMENTS, {"segment_ids": list(segment_ids)})
    return {row.segment_id: row for row in rows}


async def rollout_counts(session: ReadSession, segment_ids: Sequence[int]) -> dict[int, Row[Any]]:
    """Count `enrolled` and `excluded`, exactly: it costs an index scan over all of them."""
    rows = await session.execute(_COUNTS, {"segment_ids": list(segment_ids)})
    return {row.segment_id: row for row in rows}


async def count_by_status(session: ReadSession) -> dict[str, int]:
    """How many rollouts of segments that exist have each status, of all `STATUSES`."""
    rows = await session.execute(_STATUSES)
    return {**dict.fromkeys(STATUSES, 0), **{row.status: row.number for row in rows}}


async def progress_of_passes(session: ReadSession, *, at_most: int) -> dict[str, float]:
    """How far the passes under way are (0 to 1), by slug; those that started last."""
    rows = await session.execute(_PASSES, {"at_most": at_most})
    return {row.slug: float(row.progress) for row in rows}
