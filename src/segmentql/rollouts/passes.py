"""The work of a rollout: one pass over all users for each stage, in chunks.

A pass has three kinds of steps. `_begin_pass` stores the stage and the percent. `take_sample` finds
the bound of the sample (see `sampling.py`). `process_chunk` (see `chunks.py`) then goes through all
users in order of their ids, one chunk for each transaction. It adds the users of the sample. If the
percent is not above `max_percent`, the highest percent at which a current member may have joined,
it also removes the members outside the sample that the rollout added.

A chunk commits its changes and its cursor together, under the lock of the rollout's row. So two
chunks of one rollout never overlap, and after a crash the next worker continues at the cursor.

A new plan, the next stage and a withdrawal each begin another pass with a new pass number. A sample
of an earlier pass number is discarded.
"""

import enum
from decimal import Decimal
from typing import Final

from sqlalchemy import text

from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.principal import NO_ACTOR
from segmentql.rollouts.chunks import process_chunk
from segmentql.rollouts.event_log import record_event
from segmentql.rollouts.jobs import ADVANCE_ROLLOUT, START_ROLLOUT_STAGE
from segmentql.rollouts.messages import enqueue_expiry, enqueue_stage_starts
from segmentql.rollouts.reads import FROM_ROLLOUTS, WORK_DUE, lock_rollout, read_rollout
from segmentql.rollouts.records import RolloutRecord
from segmentql.rollouts.sampling import PendingSample
from segmentql.segments.service import SEGMENT_LOCK
from segmentql.tables import PassPhase, RolloutEvent, RolloutState

MAX_FAILURES: Final = 5
"""Consecutive failed attempts after which the rollout is `FAILED`."""

EARLY_TOLERANCE_SECONDS: Final = 1
"""How early the message that starts a stage may arrive because clocks differ."""

STALLED_AFTER_SECONDS: Final = 2
"""If a rollout makes no progress for this long, the scheduler assumes that its message is lost."""

# Every transaction that adds members first takes the segment's advisory lock (segments/service.py),
# then the lock of the rollout's row. SKIP LOCKED: the worker that holds the row enqueues the next
# message itself.
_CLAIM = text(f"""
WITH segment_lock AS MATERIALIZED (
    SELECT id, pg_advisory_xact_lock_shared({SEGMENT_LOCK})
    FROM (SELECT CAST(:segment_id AS bigint) AS id) AS requested
), live AS MATERIALIZED (
    SELECT s.id FROM segments s JOIN segment_lock USING (id)
    WHERE s.deleted_at IS NULL FOR KEY SHARE OF s
)
SELECT r.segment_id FROM rollouts r JOIN live ON live.id = r.segment_id
FOR NO KEY UPDATE OF r SKIP LOCKED
""")

# `rollouts` has the current pass only. `rollout_passes` has all passes.
_BEGIN_PASS = text("""
WITH begun AS (
    UPDATE rollouts SET
        pass_number = pass_number + 1, phase = 'SAMPLING', stage = :stage, percent = :percent,
        removes_members = :removes_members, max_percent = :max_percent,
        cursor_user_id = 0, users_total = 0, users_seen = 0,
        failures = 0, heartbeat_at = clock_timestamp(),
        started_at = coalesce(started_at, CASE WHEN :stage > 0 THEN clock_timestamp() END)
    WHERE segment_id = :segment_id
    RETURNING segment_id, pass_number, stage, percent, removes_members, state, heartbeat_at
)
INSERT INTO rollout_passes
    (segment_id, pass_number, stage, percent, removes_members, is_withdrawal, started_at)
SELECT segment_id, pass_number, stage, percent, removes_members, state = 'WITHDRAWING', heartbeat_at
FROM begun
RETURNING pass_number
""")

_FINISH_PASS = text("""
WITH stage AS (
    UPDATE rollout_stages SET done_at = clock_timestamp()
    WHERE segment_id = :segment_id AND number = :stage AND :is_stage_done
), finished AS (
    UPDATE rollouts SET
        phase = 'DONE', users_seen = users_total, failures = 0, heartbeat_at = clock_timestamp(),
        max_percent = CASE WHEN removes_members THEN percent ELSE max_percent END,
        state = CASE state WHEN 'WITHDRAWING' THEN 'CANCELLED' ELSE state END,
        finished_at = CASE WHEN :last THEN clock_timestamp() END
    WHERE segment_id = :segment_id
    RETURNING segment_id, pass_number, heartbeat_at
)
UPDATE rollout_passes p SET finished_at = finished.heartbeat_at
FROM finished WHERE p.segment_id = finished.segment_id AND p.pass_number = finished.pass_number
""")

_RECORD_FAILURE = text(f"""
UPDATE rollouts SET
    failures = failures + 1, heartbeat_at = clock_timestamp(),
    state = CASE WHEN failures + 1 >= {MAX_FAILURES} THEN 'FAILED' ELSE state END,
    failure = CASE WHEN failures + 1 >= {MAX_FAILURES} THEN CAST(:reason AS text) END
WHERE segment_id = :segment_id AND state IN ('ACTIVE', 'WITHDRAWING')
RETURNING state
""")

_FIND_DUE = text(f"""
SELECT r.segment_id {FROM_ROLLOUTS}
WHERE r.state IN ('ACTIVE', 'WITHDRAWING') AND r.finished_at IS NULL AND {WORK_DUE}
  AND r.heartbeat_at < statement_timestamp() - make_interval(secs => {STALLED_AFTER_SECONDS})
ORDER BY r.heartbeat_at LIMIT 100
""")

# A rollout with work in progress is due once it is stalled.
_SECONDS_TO_NEXT = text(f"""
SELECT CAST(extract(epoch FROM min(greatest(
    CASE WHEN NOT {WORK_DUE} THEN schedule.start_times[schedule.current + 1] END,
    r.heartbeat_at + make_interval(secs => {STALLED_AFTER_SECONDS})
)) - statement_timestamp()) AS float8)
{FROM_ROLLOUTS}
WHERE r.state IN ('ACTIVE', 'WITHDRAWING') AND r.finished_at IS NULL AND s.deleted_at IS NULL
  AND ({WORK_DUE} OR schedule.current < cardinality(schedule.start_times))
""")


class StepOutcome(enum.Enum):
    """Whether the worker should run another step now."""

    MORE_WORK = "MORE_WORK"
    NO_WORK = "NO_WORK"


async def advance(session: WriteSession, segment_id: int) -> PendingSample | StepOutcome:
    """Run one step of a rollout, if one is due: begin a pass, or process one chunk.

    If another worker holds the rollout, do nothing.

    Returns:
        The pending sample if the pass needs one next, otherwise whether another step is due.
    """
    if (await session.execute(_CLAIM, {"segment_id": segment_id})).one_or_none() is None:
        return StepOutcome.NO_WORK
    rollout = await read_rollout(session, segment_id)
    if not rollout.work_due:
        _reschedule_if_early(session, rollout)
        return StepOutcome.NO_WORK
    if rollout.phase == PassPhase.DUE or (
        rollout.state == RolloutState.ACTIVE and rollout.current > rollout.stage
    ):
        return await _begin_pass(session, rollout)
    if rollout.phase == PassPhase.SAMPLING:
        return PendingSample(segment_id, rollout.pass_number, rollout.pass_percent)
    if await process_chunk(session, rollout):
        return StepOutcome.MORE_WORK
    await _finish_pass(session, rollout)
    return StepOutcome.NO_WORK


def _reschedule_if_early(session: WriteSession, rollout: RolloutRecord) -> None:
    """Send the message again if it arrived just before the next stage starts.

    The clock of Redis or of a worker may be ahead of the database's clock.
    """
    next_starts = rollout.start_times[rollout.current : rollout.current + 1]
    if rollout.state == RolloutState.ACTIVE and next_starts:
        delay = (next_starts[0] - rollout.read_at).total_seconds()
        if delay <= EARLY_TOLERANCE_SECONDS:
            session.after_commit(
                Message(START_ROLLOUT_STAGE, (rollout.segment_id,), delay_seconds=delay)
            )


async def _begin_pass(session: WriteSession, rollout: RolloutRecord) -> PendingSample:
    withdraws = rollout.state == RolloutState.WITHDRAWING
    stage = rollout.current
    percent = Decimal(0) if withdraws or stage == 0 else rollout.percents[stage - 1]
    # New users may have joined at the percents of the skipped stages.
    max_percent = rollout.highest_percent(up_to_stage=stage - 1)
    pass_number: int = (
        await session.execute(
            _BEGIN_PASS,
            {
                "segment_id": rollout.segment_id,
                "stage": stage,
                "percent": percent,
                "removes_members": withdraws or percent <= max_percent,
                "max_percent": max(max_percent, percent),
            },
        )
    ).scalar_one()
    return PendingSample(rollout.segment_id, pass_number, percent)


async def enqueue_continuation(session: WriteSession, segment_id: int) -> None:
    """Enqueue a message for the next step, which any worker may run."""
    session.after_commit(Message(ADVANCE_ROLLOUT, (segment_id,)))


async def _finish_pass(session: WriteSession, rollout: RolloutRecord) -> None:
    withdraws = rollout.state == RolloutState.WITHDRAWING
    await session.execute(
        _FINISH_PASS,
        {
            "segment_id": rollout.segment_id,
            "stage": rollout.stage,
            "is_stage_done": not withdraws and not rollout.expired,
            "last": withdraws or rollout.stage == len(rollout.percents),
        },
    )
    if not withdraws:
        enqueue_stage_starts(session, rollout)
        enqueue_expiry(session, rollout)


async def record_failure(session: WriteSession, segment_id: int, reason: str) -> None:
    """Count a failed attempt. After `MAX_FAILURES` without progress the rollout is `FAILED`."""
    before = await lock_rollout(session, segment_id)
    values = {"segment_id": segment_id, "reason": reason}
    state = (await session.execute(_RECORD_FAILURE, values)).scalar_one_or_none()
    if state == RolloutState.FAILED:
        after = await read_rollout(session, segment_id)
        await record_event(session, RolloutEvent.FAILED, before=before, after=after, actor=NO_ACTOR)


async def find_due_rollouts(session: ReadSession) -> list[int]:
    """Return up to 100 ids of segments whose rollouts have work due but are stalled."""
    return list((await session.execute(_FIND_DUE)).scalars())


async def seconds_to_next(session: ReadSession) -> float | None:
    """Return the seconds until the scheduler should look for due rollouts; None if none will be."""
    seconds: float | None = (await session.execute(_SECONDS_TO_NEXT)).scalar_one()
    return seconds
