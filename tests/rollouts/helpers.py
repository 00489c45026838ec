"""Helpers for tests of rollouts: plans, expected samples, reads, and single worker steps."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from segmentql.adapters.database import Database
from segmentql.memberships.records import OnExisting, UserSegmentsUpdate
from segmentql.memberships.service import update_user_segments
from segmentql.principal import NO_ACTOR
from segmentql.rollouts import passes, reads, sampling, service
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.plan import Plan, Stage
from segmentql.rollouts.records import RolloutRecord
from segmentql.rollouts.sampling import rollout_hash_v1, sample_size
from tests.conftest import Sql, until
from tests.timeline import make_segment

ACTIVE = "s.deleted_at IS NULL AND (m.expires_at IS NULL OR m.expires_at > clock_timestamp())"


def stage(percent: float | str, **when: Any) -> Stage:
    return Stage(Decimal(str(percent)), **when)


async def store_users(sql: Sql, count: int, *, first: int = 1) -> range:
    """Store `count` users with consecutive ids from `first` on, in one statement."""
    await sql.execute(
        """
        INSERT INTO users (id, created_at)
        SELECT id, clock_timestamp() FROM generate_series($1::bigint, $1 + $2::bigint - 1) AS id
        """,
        first,
        count,
    )
    return range(first, first + count)


async def set_plan(
    database: Database,
    slug: str,
    *stages: float | str | Stage,
    enroll_new_users: bool = True,
    expires_at: datetime | None = None,
) -> RolloutRecord:
    """Set a plan of these stages or percents; return its rollout, on which no worker has worked.

    Every stage after the first needs a time.
    """
    plan = Plan(
        [each if isinstance(each, Stage) else stage(each) for each in stages],
        enroll_new_users=enroll_new_users,
        expires_at=expires_at,
    )
    _, rollout = await database.transaction(
        lambda session: service.set_rollout(
            session, slug=slug, plan=plan, expected_version=None, actor=NO_ACTOR
        )
    )
    return rollout


async def create_enrolling_segment(
    sql: Sql, database: Database, slug: str, percent: float, **plan_fields: Any
) -> int:
    """Create a segment whose pass finished before any user was stored; return its id."""
    segment_id = await make_segment(sql, slug)
    await set_plan(database, slug, percent, **plan_fields)
    await advance_rollout(database, segment_id)
    return segment_id


async def cancel(database: Database, slug: str, *, withdraw: bool = False) -> None:
    await database.transaction(
        lambda session: service.cancel_rollout(
            session, slug=slug, withdraw=withdraw, actor=NO_ACTOR
        )
    )


async def update_manually(
    database: Database,
    user_id: int,
    *,
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    ttl: timedelta | None = None,
    on_existing: OnExisting = OnExisting.EXTEND,
) -> UserSegmentsUpdate:
    """Do what `updateUserSegments` does."""
    return await database.transaction(
        lambda session: update_user_segments(
            session,
            user_id=user_id,
            add=add,
            remove=remove,
            ttl=ttl,
            on_existing=on_existing,
            actor=NO_ACTOR,
        )
    )


# --- Expected values ------------------------------------------------------------------------------


def joins_on_insert(segment_id: int, user_id: int, percent: float | str | Decimal) -> bool:
    """Return whether a new user joins when stored while this percent is in force."""
    return rollout_hash_v1(segment_id, user_id) < Decimal(str(percent)) / 100 * 2**48


def expected_sample(
    segment_id: int, user_ids: Iterable[int], percent: float | str | Decimal
) -> set[int]:
    """Return the sample of these users at this percent."""
    ranked = sorted((rollout_hash_v1(segment_id, user_id), user_id) for user_id in user_ids)
    return {user_id for _, user_id in ranked[: sample_size(len(ranked), Decimal(str(percent)))]}


# --- Reads ---------------------------------------------------------------------------------------


async def members(sql: Sql, segment_id: int) -> dict[int, str]:
    """Return the cause of each active membership, by user id."""
    rows = await sql.fetch(
        f"""
        SELECT m.user_id, m.cause::text FROM memberships m JOIN segments s ON s.id = m.segment_id
        WHERE s.id = $1 AND {ACTIVE} ORDER BY m.user_id
        """,
        segment_id,
    )
    return {row["user_id"]: row["cause"] for row in rows}


async def excluded(sql: Sql, segment_id: int) -> set[int]:
    rows = await sql.fetch("SELECT user_id FROM exclusions WHERE segment_id = $1", segment_id)
    return {row["user_id"] for row in rows}


async def history_counts(sql: Sql, segment_id: int) -> dict[tuple[str, str], int]:
    """Return the number of a segment's history rows by operation and cause."""
    rows = await sql.fetch(
        """
        SELECT operation::text, cause::text, count(*) FROM history
        WHERE segment_id = $1 GROUP BY 1, 2 ORDER BY 1, 2
        """,
        segment_id,
    )
    return {(operation, cause): count for operation, cause, count in rows}


async def membership_ids(sql: Sql, segment_id: int) -> dict[int, int]:
    """Return the membership id of each member. Rejoining creates a new one."""
    rows = await sql.fetch("SELECT user_id, id FROM memberships WHERE segment_id = $1", segment_id)
    return {row["user_id"]: row["id"] for row in rows}


async def read_rollout(database: Database, segment_id: int) -> RolloutRecord:
    async with database.read() as session:
        return (await reads.rollouts_by_segment(session, [segment_id]))[segment_id]


async def stored_users(sql: Sql) -> dict[int, int]:
    """Return the insert_seq of each stored user."""
    rows = await sql.fetch("SELECT id, insert_seq FROM users")
    return {row["id"]: row["insert_seq"] for row in rows}


# --- Single steps of a worker --------------------------------------------------------------------


async def begin_pass(database: Database, segment_id: int) -> sampling.PendingSample:
    """Begin a pass, or find it begun without a sample."""
    done = await database.transaction(lambda session: passes.advance(session, segment_id))
    assert isinstance(done, sampling.PendingSample)
    return done


async def take_sample(database: Database, pending: sampling.PendingSample) -> sampling.Sample:
    async with database.long_read(seconds=60) as reading:
        sample = await sampling.take_sample(reading, pending)
    assert sample is not None
    return sample


async def store_sample(
    database: Database, pending: sampling.PendingSample, sample: sampling.Sample
) -> None:
    await database.transaction(lambda session: sampling.store_sample(session, pending, sample))


async def begin_pass_with_sample(database: Database, segment_id: int) -> sampling.Sample:
    """Begin a pass and store its sample, so that only its chunks are left."""
    pending = await begin_pass(database, segment_id)
    sample = await take_sample(database, pending)
    await store_sample(database, pending, sample)
    return sample


async def work_chunk(database: Database, segment_id: int) -> passes.StepOutcome:
    """Work one chunk; return whether another step is due."""
    done = await database.transaction(lambda session: passes.advance(session, segment_id))
    assert isinstance(done, passes.StepOutcome)
    return done


async def finish_rollout(database: Database, segment_id: int) -> None:
    """Advance the rollout until no work is due, also if other workers hold it meanwhile."""

    async def finished() -> bool:
        await advance_rollout(database, segment_id)
        return not (await read_rollout(database, segment_id)).work_due

    await until(finished)
