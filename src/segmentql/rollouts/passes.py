"""How workers carry out a rollout: one pass for each stage, in chunks.

A pass begins (`claim`), finds who is of its sample (`take_sample`), and then goes through all
users in order of their numbers (`work_chunk`): it puts in those of the sample, and takes out those
beyond it whom the rollout had brought in, if the percent is not the highest so far. What a chunk
wrote and how far it came are committed together, under the lock of the rollout's row: so chunks of
one rollout never overlap, and whoever comes after a crash goes on where it was.

A new plan, the next stage or a withdrawal begins another pass; what is under way for the old one
finds the pass' number changed and writes nothing.
"""

import asyncio
import enum
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Row, text

from segmentql.adapters.database import ReadSession, WriteSession
from segmentql.adapters.jobs import ADVANCE_ROLLOUT, START_ROLLOUT_STAGE, Message
from segmentql.moments import CHANGE_BY_ROLLOUT
from segmentql.rollouts.selection import BOUND
from segmentql.rollouts.service import (
    FROM_ROLLOUTS,
    ROLLOUT_COLUMNS,
    WORK_DUE,
    announce_end,
    announce_stages,
)
from segmentql.segments.service import QUEUE_OF_SEGMENT
from segmentql.tables import PassPhase, RolloutState

CHUNK_USERS: Final = 20_000
"""Users that one transaction looks at: a few tenths of a second if all of them join."""

MAX_FAILURES: Final = 5
"""Tries that fail one after another before the rollout is `FAILED`."""

SAMPLE_SECONDS: Final = 600
"""How long taking a sample may take: some 0.8 s a million users."""

STORING_SECONDS: Final = 30
"""How long one try waits for others to have stored their users; a bulk load may take longer."""

POLL_SECONDS: Final = 0.01
EARLY_SECONDS: Final = 1
STALE_SECONDS: Final = 2
"""After so long without progress the scheduler takes the messages for lost."""

SAMPLING_CLASS: Final = 7002

# Whoever adds to a segment queues with those who delete it; see segments/service.py. The rollout's
# row after that; another worker's chunk is not waited for, for it sends the next message.
_CLAIM = text(f"""
WITH queued AS MATERIALIZED (
    SELECT id, pg_advisory_xact_lock_shared({QUEUE_OF_SEGMENT})
    FROM (SELECT CAST(:segment_id AS bigint) AS id) AS named
), live AS MATERIALIZED (
    SELECT s.id FROM segments s JOIN queued USING (id)
    WHERE s.deleted_at IS NULL FOR KEY SHARE OF s
)
SELECT r.segment_id FROM rollouts r JOIN live ON live.id = r.segment_id
FOR NO KEY UPDATE OF r SKIP LOCKED
""")

_READ = text(f"SELECT {ROLLOUT_COLUMNS} {FROM_ROLLOUTS} WHERE r.segment_id = :segment_id")

_BEGIN = text("""
UPDATE rollouts SET
    pass_number = pass_number + 1, phase = 'SAMPLING', stage = :stage, percent = :percent,
    takes_out = :takes_out, reach = :reach, cursor_user_id = 0, users_total = 0, users_seen = 0,
    failures = 0, touched_at = clock_timestamp(),
    started_at = coalesce(started_at, CASE WHEN :stage > 0 THEN clock_timestamp() END)
WHERE segment_id = :segment_id
RETURNING pass_number
""")

# By itself, for it takes no time from those who wait for answers to have it sooner.
_ALONE = text("SET LOCAL max_parallel_workers_per_gather = 0")

_TRY_SAMPLING = text(f"""
SELECT pg_try_advisory_xact_lock(
    {SAMPLING_CLASS}, CAST(CAST(:segment_id AS bigint) % 2147483647 AS integer))
""")

_LAST_ARRIVAL = text("""
SELECT coalesce(pg_sequence_last_value(CAST('users_arrival_seq' AS regclass)), 0)
""")

# Transactions that have stored users, or are about to.
_STORING = text("""
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND relation = CAST('users' AS regclass) AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND mode = 'RowExclusiveLock' AND pid <> pg_backend_pid()
""")

_BOUND = text(BOUND)

_NOBODY = text("""
SELECT count(*) AS users_total, CAST(-1 AS bigint) AS bound_hash, CAST(0 AS bigint) AS bound_user_id
FROM memberships WHERE segment_id = :segment_id AND cause = 'ROLLOUT'
""")

_STORE_SAMPLE = text("""
UPDATE rollouts SET
    phase = 'WORKING', last_arrival = :last_arrival, bound_hash = :bound_hash,
    bound_user_id = :bound_user_id, users_total = :users_total, touched_at = clock_timestamp()
WHERE segment_id = :segment_id AND pass_number = :pass_number AND phase = 'SAMPLING'
""")

# Who of the next users must be put in, taken out, or given another end. They are locked, as by
# everybody who changes memberships; the next statement sees what was committed meanwhile.
_RANGE_OF_USERS = """
SELECT id, (rollout_hash_v1(:segment_id, id), id)
    <= (CAST(:bound_hash AS bigint), CAST(:bound_user_id AS bigint)) AS in_sample
FROM users WHERE id > :cursor_user_id AND arrival <= :last_arrival
ORDER BY id LIMIT :rows
"""
_RANGE_OF_MEMBERS = """
SELECT user_id AS id, false AS in_sample
FROM memberships
WHERE segment_id = :segment_id AND user_id > :cursor_user_id AND cause = 'ROLLOUT'
ORDER BY user_id LIMIT :rows
"""
_LOOK = """
WITH range AS MATERIALIZED (
    {range}
), ends AS MATERIALIZED (
    SELECT count(*) AS seen, max(id) AS last_id FROM range
), member AS MATERIALIZED (
    SELECT user_id AS id, cause, expires_at FROM memberships
    WHERE segment_id = :segment_id AND user_id > :cursor_user_id
      AND user_id <= (SELECT last_id FROM ends)
      AND (expires_at IS NULL OR expires_at > now())
), excluded AS MATERIALIZED (
    SELECT user_id AS id FROM exclusions
    WHERE segment_id = :segment_id AND user_id > :cursor_user_id
      AND user_id <= (SELECT last_id FROM ends)
), wanted AS MATERIALIZED (
    -- FULL JOIN, here and below, for it is never done row by row: the planner may not have heard
    -- yet of members who have just come.
    SELECT id, CASE
        WHEN r.in_sample IS NULL THEN NULL  -- not of this range
        WHEN m.cause IS NULL THEN CASE WHEN r.in_sample AND e.id IS NULL THEN 'in' END
        WHEN m.cause <> 'ROLLOUT' THEN NULL
        WHEN NOT r.in_sample AND CAST(:takes_out AS boolean) THEN 'out'
        WHEN m.expires_at IS DISTINCT FROM CAST(:expires_at AS timestamptz) THEN 'end'
        END AS change
    FROM range r FULL JOIN member m USING (id) FULL JOIN excluded e USING (id)
), locked AS MATERIALIZED (
    SELECT u.id FROM users u  -- an array, for the planner would rather read all users than join
    WHERE u.id = ANY(ARRAY(SELECT id FROM wanted WHERE change IS NOT NULL))
    ORDER BY u.id FOR NO KEY UPDATE
), agreed AS MATERIALIZED (
    SELECT id, CASE WHEN locked.id IS NOT NULL THEN change END AS change
    FROM wanted FULL JOIN locked USING (id)
)
SELECT seen, coalesce(last_id, 0) AS last_id,
    (SELECT array_agg(id) FILTER (WHERE change = 'in') FROM agreed) AS put_in,
    (SELECT array_agg(id) FILTER (WHERE change = 'out') FROM agreed) AS take_out,
    (SELECT array_agg(id) FILTER (WHERE change = 'end') FROM agreed) AS move_end
FROM ends
"""
_LOOK_AT_USERS = text(_LOOK.format(range=_RANGE_OF_USERS))
_LOOK_AT_MEMBERS = text(_LOOK.format(range=_RANGE_OF_MEMBERS))

# Each change asks again what it stands on. An end that has passed by now is now: until now
# everybody was told that they are in.
_WRITE = text(f"""
WITH {CHANGE_BY_ROLLOUT},
taken_out AS (
    DELETE FROM memberships m USING change
    WHERE m.segment_id = :segment_id AND m.user_id = ANY(CAST(:take_out AS bigint[]))
      AND m.cause = 'ROLLOUT'
), moved AS (
    UPDATE memberships m
    SET updated_at = change.at, expires_at = CASE
        WHEN CAST(:expires_at AS timestamptz) < change.at THEN change.at
        ELSE CAST(:expires_at AS timestamptz) END
    FROM change
    WHERE m.segment_id = :segment_id AND m.user_id = ANY(CAST(:move_end AS bigint[]))
      AND m.cause = 'ROLLOUT' AND (m.expires_at IS NULL OR m.expires_at > change.at)
), put_in AS (
    INSERT INTO memberships AS m
        (user_id, segment_id, joined_at, updated_at, expires_at, cause, actor)
    SELECT user_id, :segment_id, change.at, change.at, CAST(:expires_at AS timestamptz), 'ROLLOUT',
        CAST(:actor AS text)
    FROM change, unnest(CAST(:put_in AS bigint[])) AS chosen (user_id)
    WHERE (CAST(:expires_at AS timestamptz) IS NULL OR :expires_at > change.at)
      AND NOT EXISTS (
        SELECT FROM exclusions e
        WHERE e.user_id = chosen.user_id AND e.segment_id = :segment_id)
    ORDER BY user_id
    ON CONFLICT (user_id, segment_id) DO UPDATE SET
        -- It had run out: a new membership, as when somebody is added again by hand.
        id = excluded.id,
        joined_at = greatest(excluded.joined_at, m.expires_at + interval '1 microsecond'),
        updated_at = excluded.updated_at, expires_at = excluded.expires_at,
        cause = excluded.cause, actor = excluded.actor
    WHERE m.expires_at <= excluded.updated_at
)
SELECT 1
""")

_MOVE_ON = text("""
UPDATE rollouts SET
    cursor_user_id = :cursor_user_id, users_seen = least(users_seen + :seen, users_total),
    failures = 0, touched_at = clock_timestamp()
WHERE segment_id = :segment_id
""")

_FINISH = text("""
WITH stage AS (
    UPDATE rollout_stages SET done_at = clock_timestamp()
    WHERE segment_id = :segment_id AND number = :stage AND :carried_out
)
UPDATE rollouts SET
    phase = 'DONE', users_seen = users_total, failures = 0, touched_at = clock_timestamp(),
    reach = CASE WHEN takes_out THEN percent ELSE reach END,
    state = CASE state WHEN 'WITHDRAWING' THEN 'CANCELLED' ELSE state END,
    finished_at = CASE WHEN :last THEN clock_timestamp() END
WHERE segment_id = :segment_id
""")

_NOTE_FAILURE = text(f"""
UPDATE rollouts SET
    failures = failures + 1, touched_at = clock_timestamp(),
    state = CASE WHEN failures + 1 >= {MAX_FAILURES} THEN 'FAILED' ELSE state END,
    failure = CASE WHEN failures + 1 >= {MAX_FAILURES} THEN CAST(:reason AS text) END
WHERE segment_id = :segment_id AND state IN ('ACTIVE', 'WITHDRAWING')
""")

_DUE = text(f"""
SELECT r.segment_id {FROM_ROLLOUTS}
WHERE r.state IN ('ACTIVE', 'WITHDRAWING') AND r.finished_at IS NULL AND {WORK_DUE}
  AND r.touched_at < statement_timestamp() - make_interval(secs => {STALE_SECONDS})
ORDER BY r.touched_at LIMIT 100
""")

# A rollout whose work is under way is due when it has made no progress for a while.
_SECONDS_TO_NEXT = text(f"""
SELECT CAST(extract(epoch FROM min(greatest(
    CASE WHEN NOT {WORK_DUE} THEN schedule.starts[schedule.current + 1] END,
    r.touched_at + make_interval(secs => {STALE_SECONDS})
)) - statement_timestamp()) AS float8)
{FROM_ROLLOUTS}
WHERE r.state IN ('ACTIVE', 'WITHDRAWING') AND r.finished_at IS NULL AND s.deleted_at IS NULL
  AND ({WORK_DUE} OR schedule.current < cardinality(schedule.starts))
""")


@dataclass(frozen=True)
class Sampling:
    """A pass that has begun and whose sample is to be taken."""

    segment_id: int
    pass_number: int
    percent: Decimal


@dataclass(frozen=True)
class Sample:
    """Who is of a pass' sample: those up to the bound, of the users up to the last arrival."""

    last_arrival: int
    bound_hash: int
    bound_user_id: int
    users_total: int


class Next(enum.Enum):
    """What is to be done after a step."""

    STEP = "STEP"
    NOTHING = "NOTHING"


async def advance(session: WriteSession, segment_id: int) -> Sampling | Next:
    """Do one step of a rollout's work, if some is due; what is to be done after it.

    A step begins a pass, whose sample is then to be taken, or works a chunk. Nothing is done, nor
    to be done, while another worker is at this rollout.
    """
    if (await session.execute(_CLAIM, {"segment_id": segment_id})).one_or_none() is None:
        return Next.NOTHING
    rollout = (await session.execute(_READ, {"segment_id": segment_id})).one()
    if not rollout.work_due:
        _come_again_if_early(session, rollout)
        return Next.NOTHING
    if rollout.phase == PassPhase.DUE or (
        rollout.state == RolloutState.ACTIVE and rollout.current > rollout.stage
    ):
        return await _begin(session, rollout)
    if rollout.phase == PassPhase.SAMPLING:
        return Sampling(segment_id, rollout.pass_number, rollout.pass_percent)
    return await _work_chunk(session, rollout)


def _come_again_if_early(session: WriteSession, rollout: Row[Any]) -> None:
    """Clocks differ: a message for a stage may come a moment before the database has it due."""
    ahead = rollout.starts[rollout.current : rollout.current + 1]
    if rollout.state == RolloutState.ACTIVE and ahead:
        delay = (ahead[0] - rollout.read_at).total_seconds()
        if delay <= EARLY_SECONDS:
            session.after_commit(
                Message(START_ROLLOUT_STAGE, (rollout.segment_id,), delay_seconds=delay)
            )


async def _begin(session: WriteSession, rollout: Row[Any]) -> Sampling:
    withdraws = rollout.state == RolloutState.WITHDRAWING
    stage: int = rollout.current
    percent = Decimal(0) if withdraws or stage == 0 else rollout.percents[stage - 1]
    # New users may have joined for the stages that are passed over.
    passed_over: Sequence[Decimal] = rollout.percents[max(rollout.stage, 0) : max(stage - 1, 0)]
    reach: Decimal = max([rollout.reach, *passed_over])
    number: int = (
        await session.execute(
            _BEGIN,
            {
                "segment_id": rollout.segment_id,
                "stage": stage,
                "percent": percent,
                "takes_out": withdraws or percent <= reach,
                "reach": max(reach, percent),
            },
        )
    ).scalar_one()
    return Sampling(rollout.segment_id, number, percent)


async def take_sample(session: ReadSession, sampling: Sampling) -> Sample | None:
    """Find the bound of a pass' sample, in one transaction.

    None if another worker is at it, or somebody has been storing users for longer than
    `STORING_SECONDS`: then it is the scheduler's to have it tried again.

    The pass is committed, so whoever stores a user from now on sees it, and decides by it whether
    the user joins. Those who are storing users now may not have seen it: they are waited for, and
    then all users up to the last arrival can be seen. So every user is either of the sample's
    N, or was met by the rollout when it was stored; none is both or neither.
    """
    values = {"segment_id": sampling.segment_id, "percent": sampling.percent}
    if not (await session.execute(_TRY_SAMPLING, values)).scalar_one():
        return None
    await session.execute(_ALONE)
    last_arrival: int = (await session.execute(_LAST_ARRIVAL)).scalar_one()
    if not await _those_storing_are_done(session):
        return None
    found = (
        await session.execute(
            _BOUND if sampling.percent else _NOBODY, {**values, "last_arrival": last_arrival}
        )
    ).one()
    return Sample(last_arrival, found.bound_hash, found.bound_user_id, found.users_total)


async def _those_storing_are_done(session: ReadSession) -> bool:
    storing = set((await session.execute(_STORING)).scalars())
    give_up_at = time.monotonic() + STORING_SECONDS
    while storing and time.monotonic() < give_up_at:
        await asyncio.sleep(POLL_SECONDS)
        storing &= set((await session.execute(_STORING)).scalars())
    return not storing


async def store_sample(session: WriteSession, sampling: Sampling, sample: Sample) -> None:
    """Let the chunks of a pass begin, unless there is another pass by now."""
    await session.execute(_STORE_SAMPLE, {**asdict(sampling), **asdict(sample)})


async def hand_over(session: WriteSession, segment_id: int) -> None:
    """Have a message sent for the next step, which any worker may take."""
    session.after_commit(Message(ADVANCE_ROLLOUT, (segment_id,)))


async def _work_chunk(session: WriteSession, rollout: Row[Any]) -> Next:
    values = {
        "segment_id": rollout.segment_id,
        "cursor_user_id": rollout.cursor_user_id,
        "takes_out": rollout.takes_out,
        "expires_at": rollout.expires_at,
        "rows": CHUNK_USERS,
    }
    if rollout.pass_percent:
        sample = {
            "last_arrival": rollout.last_arrival,
            "bound_hash": rollout.bound_hash,
            "bound_user_id": rollout.bound_user_id,
        }
        looked = (await session.execute(_LOOK_AT_USERS, {**values, **sample})).one()
    else:  # nobody is of the sample: the members are enough to look at
        looked = (await session.execute(_LOOK_AT_MEMBERS, values)).one()
    if looked.put_in or looked.take_out or looked.move_end:
        await session.execute(
            _WRITE,
            {
                "segment_id": rollout.segment_id,
                "actor": rollout.actor,
                "expires_at": rollout.expires_at,
                "put_in": looked.put_in or [],
                "take_out": looked.take_out or [],
                "move_end": looked.move_end or [],
            },
        )
    if looked.seen < CHUNK_USERS:
        await _finish(session, rollout)
        return Next.NOTHING
    await session.execute(
        _MOVE_ON,
        {
            "segment_id": rollout.segment_id,
            "cursor_user_id": looked.last_id,
            "seen": looked.seen,
        },
    )
    return Next.STEP


async def _finish(session: WriteSession, rollout: Row[Any]) -> None:
    withdraws = rollout.state == RolloutState.WITHDRAWING
    await session.execute(
        _FINISH,
        {
            "segment_id": rollout.segment_id,
            "stage": rollout.stage,
            "carried_out": not withdraws and not rollout.expired,
            "last": withdraws or rollout.stage == len(rollout.percents),
        },
    )
    if not withdraws:
        announce_stages(session, rollout)
        announce_end(session, rollout)


async def note_failure(session: WriteSession, segment_id: int, reason: str) -> None:
    """Count a try that failed; after `MAX_FAILURES` without progress the rollout has failed."""
    await session.execute(_NOTE_FAILURE, {"segment_id": segment_id, "reason": reason})


async def due_rollouts(session: ReadSession) -> list[int]:
    """The segments, 100 at most, whose rollouts have work to do that nobody has lately done."""
    return list((await session.execute(_DUE)).scalars())


async def seconds_to_next(session: ReadSession) -> float | None:
    """Return how soon a rollout is due that is not due now; None if there is no such rollout."""
    seconds: float | None = (await session.execute(_SECONDS_TO_NEXT)).scalar_one()
    return seconds
