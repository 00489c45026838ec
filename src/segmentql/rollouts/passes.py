"""The work of a rollout: one pass over all users for each stage, in chunks.

A pass has three kinds of steps. `_begin_pass` stores the stage and the percent. `take_sample` finds
the bound of the sample (see `sampling.py`). `_process_chunk` then goes through all users in order
of their ids, one chunk for each transaction. It adds the users of the sample. If the percent is not
above `max_percent`, the highest percent at which a current member may have joined, it also removes
the members outside the sample that the rollout added.

A chunk commits its changes and its cursor together, under the lock of the rollout's row. So two
chunks of one rollout never overlap, and after a crash the next worker continues at the cursor.

A new plan, the next stage and a withdrawal each begin another pass with a new pass number. A sample
of an earlier pass number is discarded.
"""

import asyncio
import enum
import time
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Final

from sqlalchemy import text

from segmentql.adapters.database import ReadSession, WriteSession
from segmentql.adapters.jobs import Message
from segmentql.principal import ANONYMOUS
from segmentql.rollouts.event_log import record_event
from segmentql.rollouts.jobs import ADVANCE_ROLLOUT, START_ROLLOUT_STAGE
from segmentql.rollouts.records import RolloutRecord
from segmentql.rollouts.sampling import BOUND_QUERY
from segmentql.rollouts.service import (
    FROM_ROLLOUTS,
    ROLLOUT_COLUMNS,
    WORK_DUE,
    enqueue_expiry,
    enqueue_stage_starts,
    lock_rollout,
    rollout_record,
)
from segmentql.segments.service import SEGMENT_LOCK
from segmentql.tables import PassPhase, RolloutEvent, RolloutState
from segmentql.timestamps import CHANGE_BY_ROLLOUT

CHUNK_USERS: Final = 20_000
"""Users in one chunk. If all of them join, the transaction takes a few tenths of a second."""

MAX_FAILURES: Final = 5
"""Consecutive failed attempts after which the rollout is `FAILED`."""

SAMPLE_TIMEOUT_SECONDS: Final = 600
"""Time limit for taking a sample, which takes about 0.8 s per million users."""

INSERT_WAIT_SECONDS: Final = 30
"""How long one attempt waits for in-flight inserts of users. A bulk load may take longer."""

POLL_INTERVAL_SECONDS: Final = 0.01
EARLY_TOLERANCE_SECONDS: Final = 1
"""How early the message that starts a stage may arrive because clocks differ."""

STALLED_AFTER_SECONDS: Final = 2
"""If a rollout makes no progress for this long, the scheduler assumes that its message is lost."""

SAMPLING_LOCK_CLASS: Final = 7002

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

_READ_ROLLOUT = text(f"SELECT {ROLLOUT_COLUMNS} {FROM_ROLLOUTS} WHERE r.segment_id = :segment_id")

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

# Disable parallel workers to leave CPU for requests.
_DISABLE_PARALLEL_QUERY = text("SET LOCAL max_parallel_workers_per_gather = 0")

_TRY_SAMPLING_LOCK = text(f"""
SELECT pg_try_advisory_xact_lock(
    {SAMPLING_LOCK_CLASS}, CAST(CAST(:segment_id AS bigint) % 2147483647 AS integer))
""")

_LAST_INSERT_SEQ = text("""
SELECT coalesce(pg_sequence_last_value(CAST('users_insert_seq' AS regclass)), 0)
""")

# Transactions that have inserted users, or are about to: they hold a lock on the table.
_INFLIGHT_INSERTS = text("""
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND relation = CAST('users' AS regclass) AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND mode = 'RowExclusiveLock' AND pid <> pg_backend_pid()
""")

_FIND_BOUND = text(BOUND_QUERY)

_EMPTY_SAMPLE = text("""
SELECT count(*) AS users_total, CAST(-1 AS bigint) AS bound_hash, CAST(0 AS bigint) AS bound_user_id
FROM memberships WHERE segment_id = :segment_id AND cause = 'ROLLOUT'
""")

_STORE_SAMPLE = text("""
WITH sampled AS (
    UPDATE rollouts SET
        phase = 'WORKING', last_insert_seq = :last_insert_seq, bound_hash = :bound_hash,
        bound_user_id = :bound_user_id, users_total = :users_total, heartbeat_at = clock_timestamp()
    WHERE segment_id = :segment_id AND pass_number = :pass_number AND phase = 'SAMPLING'
    RETURNING segment_id, pass_number, last_insert_seq, bound_hash, bound_user_id, users_total,
        heartbeat_at
)
UPDATE rollout_passes p SET
    sampled_at = sampled.heartbeat_at, last_insert_seq = sampled.last_insert_seq,
    bound_hash = sampled.bound_hash, bound_user_id = sampled.bound_user_id,
    users_total = sampled.users_total
FROM sampled WHERE p.segment_id = sampled.segment_id AND p.pass_number = sampled.pass_number
""")

_NEXT_USERS = """
SELECT id, (rollout_hash_v1(:segment_id, id), id)
    <= (CAST(:bound_hash AS bigint), CAST(:bound_user_id AS bigint)) AS in_sample
FROM users WHERE id > :cursor_user_id AND insert_seq <= :last_insert_seq
ORDER BY id LIMIT :rows
"""
_NEXT_MEMBERS = """
SELECT user_id AS id, false AS in_sample
FROM memberships
WHERE segment_id = :segment_id AND user_id > :cursor_user_id AND cause = 'ROLLOUT'
ORDER BY user_id LIMIT :rows
"""
# The changes that the next users need: add, remove, or set another expiry. This locks those users,
# as every change of memberships does. The next statement sees what was committed before the lock.
_FIND_CHANGES = """
WITH scanned AS MATERIALIZED (
    {scan}
), summary AS MATERIALIZED (
    SELECT count(*) AS seen, max(id) AS last_id FROM scanned
), member AS MATERIALIZED (
    SELECT user_id AS id, cause, expires_at FROM memberships
    WHERE segment_id = :segment_id AND user_id > :cursor_user_id
      AND user_id <= (SELECT last_id FROM summary)
      AND (expires_at IS NULL OR expires_at > now())
), excluded AS MATERIALIZED (
    SELECT user_id AS id FROM exclusions
    WHERE segment_id = :segment_id AND user_id > :cursor_user_id
      AND user_id <= (SELECT last_id FROM summary)
), planned AS MATERIALIZED (
    -- FULL JOIN, here and below, because the planner never runs it as a nested loop. Its statistics
    -- may not include the newest members yet.
    SELECT id, CASE
        WHEN s.in_sample IS NULL THEN NULL  -- not scanned
        WHEN m.cause IS NULL THEN CASE WHEN s.in_sample AND e.id IS NULL THEN 'add' END
        WHEN m.cause <> 'ROLLOUT' THEN NULL
        WHEN NOT s.in_sample AND CAST(:removes_members AS boolean) THEN 'remove'
        WHEN m.expires_at IS DISTINCT FROM CAST(:expires_at AS timestamptz) THEN 'set_expiry'
        END AS change
    FROM scanned s FULL JOIN member m USING (id) FULL JOIN excluded e USING (id)
), locked AS MATERIALIZED (
    SELECT u.id FROM users u  -- An array, because the planner would scan all users for a join.
    WHERE u.id = ANY(ARRAY(SELECT id FROM planned WHERE change IS NOT NULL))
    ORDER BY u.id FOR NO KEY UPDATE
), confirmed AS MATERIALIZED (
    SELECT id, CASE WHEN locked.id IS NOT NULL THEN change END AS change
    FROM planned FULL JOIN locked USING (id)
)
SELECT seen, coalesce(last_id, 0) AS last_id,
    (SELECT array_agg(id) FILTER (WHERE change = 'add') FROM confirmed) AS to_add,
    (SELECT array_agg(id) FILTER (WHERE change = 'remove') FROM confirmed) AS to_remove,
    (SELECT array_agg(id) FILTER (WHERE change = 'set_expiry') FROM confirmed) AS to_set_expiry
FROM summary
"""
_FIND_CHANGES_OF_USERS = text(_FIND_CHANGES.format(scan=_NEXT_USERS))
_FIND_CHANGES_OF_MEMBERS = text(_FIND_CHANGES.format(scan=_NEXT_MEMBERS))

# Each change checks its conditions again. If the new expiry has already passed, the membership ends
# at this moment instead, because until now every read returned it as active.
_APPLY_CHANGES = text(f"""
WITH {CHANGE_BY_ROLLOUT},
removed AS (
    DELETE FROM memberships m USING change
    WHERE m.segment_id = :segment_id AND m.user_id = ANY(CAST(:to_remove AS bigint[]))
      AND m.cause = 'ROLLOUT'
), expiry_set AS (
    UPDATE memberships m
    SET updated_at = change.at, expires_at = CASE
        WHEN CAST(:expires_at AS timestamptz) < change.at THEN change.at
        ELSE CAST(:expires_at AS timestamptz) END
    FROM change
    WHERE m.segment_id = :segment_id AND m.user_id = ANY(CAST(:to_set_expiry AS bigint[]))
      AND m.cause = 'ROLLOUT' AND (m.expires_at IS NULL OR m.expires_at > change.at)
), added AS (
    INSERT INTO memberships AS m
        (user_id, segment_id, joined_at, updated_at, expires_at, cause, actor, api_key_id)
    SELECT user_id, :segment_id, change.at, change.at, CAST(:expires_at AS timestamptz), 'ROLLOUT',
        CAST(:actor AS text), CAST(:api_key_id AS text)
    FROM change, unnest(CAST(:to_add AS bigint[])) AS requested (user_id)
    WHERE (CAST(:expires_at AS timestamptz) IS NULL OR :expires_at > change.at)
      AND NOT EXISTS (
        SELECT FROM exclusions e
        WHERE e.user_id = requested.user_id AND e.segment_id = :segment_id)
    ORDER BY user_id
    ON CONFLICT (user_id, segment_id) DO UPDATE SET
        -- The old membership has expired: rejoining creates a new one.
        id = excluded.id,
        joined_at = greatest(excluded.joined_at, m.expires_at + interval '1 microsecond'),
        updated_at = excluded.updated_at, expires_at = excluded.expires_at,
        cause = excluded.cause, actor = excluded.actor, api_key_id = excluded.api_key_id,
        import_id = excluded.import_id
    WHERE m.expires_at <= excluded.updated_at
)
SELECT 1
""")

_SAVE_PROGRESS = text("""
UPDATE rollouts SET
    cursor_user_id = :cursor_user_id, users_seen = least(users_seen + :seen, users_total),
    failures = 0, heartbeat_at = clock_timestamp()
WHERE segment_id = :segment_id
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


@dataclass(frozen=True)
class PendingSample:
    """A pass that has begun and has no sample yet."""

    segment_id: int
    pass_number: int
    percent: Decimal


@dataclass(frozen=True)
class Sample:
    """The sample of a pass: users up to `last_insert_seq` whose (hash, id) is within the bound."""

    last_insert_seq: int
    bound_hash: int
    bound_user_id: int
    users_total: int


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
    row = (await session.execute(_READ_ROLLOUT, {"segment_id": segment_id})).one()
    rollout = rollout_record(row)
    if not rollout.work_due:
        _reschedule_if_early(session, rollout)
        return StepOutcome.NO_WORK
    if rollout.phase == PassPhase.DUE or (
        rollout.state == RolloutState.ACTIVE and rollout.current > rollout.stage
    ):
        return await _begin_pass(session, rollout)
    if rollout.phase == PassPhase.SAMPLING:
        return PendingSample(segment_id, rollout.pass_number, rollout.pass_percent)
    return await _process_chunk(session, rollout)


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


async def take_sample(session: ReadSession, pending: PendingSample) -> Sample | None:
    """Find the bound of a pass' sample, in one transaction.

    The pass is already committed, so every transaction that inserts users from now on sees it and
    decides itself whether they join. Transactions that are inserting users now may not have seen
    it. Therefore this waits for them, and then counts all users up to the last insert_seq. So each
    user is either counted here or was checked against the pass when it was inserted, never both.

    Returns:
        The sample, or None if another worker is taking it or if in-flight inserts took longer than
        `INSERT_WAIT_SECONDS`. The scheduler then sends another message.
    """
    values = {"segment_id": pending.segment_id, "percent": pending.percent}
    if not (await session.execute(_TRY_SAMPLING_LOCK, values)).scalar_one():
        return None
    await session.execute(_DISABLE_PARALLEL_QUERY)
    last_insert_seq: int = (await session.execute(_LAST_INSERT_SEQ)).scalar_one()
    if not await _wait_for_inflight_inserts(session):
        return None
    found = (
        await session.execute(
            _FIND_BOUND if pending.percent else _EMPTY_SAMPLE,
            {**values, "last_insert_seq": last_insert_seq},
        )
    ).one()
    return Sample(last_insert_seq, found.bound_hash, found.bound_user_id, found.users_total)


async def _wait_for_inflight_inserts(session: ReadSession) -> bool:
    """Wait for the transactions that are inserting users now; return whether all have ended."""
    inflight = set((await session.execute(_INFLIGHT_INSERTS)).scalars())
    deadline = time.monotonic() + INSERT_WAIT_SECONDS
    while inflight and time.monotonic() < deadline:
        await asyncio.sleep(POLL_INTERVAL_SECONDS)
        inflight &= set((await session.execute(_INFLIGHT_INSERTS)).scalars())
    return not inflight


async def store_sample(session: WriteSession, pending: PendingSample, sample: Sample) -> None:
    """Store the sample, so that the chunks can begin, unless another pass has begun."""
    await session.execute(_STORE_SAMPLE, {**asdict(pending), **asdict(sample)})


async def enqueue_continuation(session: WriteSession, segment_id: int) -> None:
    """Enqueue a message for the next step, which any worker may run."""
    session.after_commit(Message(ADVANCE_ROLLOUT, (segment_id,)))


async def _process_chunk(session: WriteSession, rollout: RolloutRecord) -> StepOutcome:
    parameters = {
        "segment_id": rollout.segment_id,
        "cursor_user_id": rollout.cursor_user_id,
        "removes_members": rollout.removes_members,
        "expires_at": rollout.expires_at,
        "rows": CHUNK_USERS,
    }
    if rollout.pass_percent:
        sample = {
            "last_insert_seq": rollout.last_insert_seq,
            "bound_hash": rollout.bound_hash,
            "bound_user_id": rollout.bound_user_id,
        }
        changes = (await session.execute(_FIND_CHANGES_OF_USERS, {**parameters, **sample})).one()
    else:  # The sample is empty, so that only members can need a change.
        changes = (await session.execute(_FIND_CHANGES_OF_MEMBERS, parameters)).one()
    if changes.to_add or changes.to_remove or changes.to_set_expiry:
        await session.execute(
            _APPLY_CHANGES,
            {
                "segment_id": rollout.segment_id,
                "actor": rollout.actor,
                "api_key_id": rollout.api_key_id,
                "expires_at": rollout.expires_at,
                "to_add": changes.to_add or [],
                "to_remove": changes.to_remove or [],
                "to_set_expiry": changes.to_set_expiry or [],
            },
        )
    if changes.seen < CHUNK_USERS:
        await _finish_pass(session, rollout)
        return StepOutcome.NO_WORK
    await session.execute(
        _SAVE_PROGRESS,
        {
            "segment_id": rollout.segment_id,
            "cursor_user_id": changes.last_id,
            "seen": changes.seen,
        },
    )
    return StepOutcome.MORE_WORK


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
        failed = (await session.execute(_READ_ROLLOUT, {"segment_id": segment_id})).one()
        after = rollout_record(failed)
        await record_event(
            session, RolloutEvent.FAILED, before=before, after=after, actor=ANONYMOUS
        )


async def find_due_rollouts(session: ReadSession) -> list[int]:
    """Return up to 100 ids of segments whose rollouts have work due but are stalled."""
    return list((await session.execute(_FIND_DUE)).scalars())


async def seconds_to_next(session: ReadSession) -> float | None:
    """Return the seconds until the scheduler should look for due rollouts; None if none will be."""
    seconds: float | None = (await session.execute(_SECONDS_TO_NEXT)).scalar_one()
    return seconds
