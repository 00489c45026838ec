"""What tests of rollouts do again and again: plans, samples, and a worker's work step by step."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Row

from segmentql.adapters.database import Database
from segmentql.memberships.service import Changed, OnExisting, update_user_segments
from segmentql.rollouts import passes, service
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.plan import Plan, Stage
from segmentql.rollouts.sampling import rollout_hash_v1, sample_size
from tests.conftest import Sql, until
from tests.timeline import make_segment

ACTIVE = "s.deleted_at IS NULL AND (m.expires_at IS NULL OR m.expires_at > clock_timestamp())"


def stage(percent: float | str, **when: Any) -> Stage:
    return Stage(Decimal(str(percent)), **when)


async def store_users(sql: Sql, count: int, *, first: int = 1) -> range:
    """Store so many users with the numbers from `first` on, in one statement."""
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
) -> Row[Any]:
    """Give a segment a plan of these stages (or plain percent); its rollout, which nobody worked.

    A plan of several stages needs their times.
    """
    plan = Plan(
        [given if isinstance(given, Stage) else stage(given) for given in stages],
        enroll_new_users=enroll_new_users,
        expires_at=expires_at,
    )
    _, rollout = await database.transaction(
        lambda session: service.set_rollout(
            session, slug=slug, plan=plan, expected_version=None, actor=None
        )
    )
    return rollout


async def enrolling(sql: Sql, database: Database, slug: str, percent: float, **given: Any) -> int:
    """A segment whose pass is over; nobody was stored when it was. Its number."""
    segment_id = await make_segment(sql, slug)
    await set_plan(database, slug, percent, **given)
    await advance_rollout(database, segment_id)
    return segment_id


async def cancel(database: Database, slug: str, *, withdraw: bool = False) -> None:
    await database.transaction(
        lambda session: service.cancel_rollout(session, slug=slug, withdraw=withdraw)
    )


async def by_hand(
    database: Database,
    user_id: int,
    *,
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    ttl: timedelta | None = None,
    on_existing: OnExisting = OnExisting.EXTEND,
) -> Changed:
    """Do what `updateUserSegments` does."""
    return await database.transaction(
        lambda session: update_user_segments(
            session, user_id=user_id, add=add, remove=remove, ttl=ttl, on_existing=on_existing
        )
    )


# --- What ought to be ----------------------------------------------------------------------------


def in_range(segment_id: int, user_id: int, percent: float | str | Decimal) -> bool:
    """Whether a user who is stored at a percent joins at once."""
    return rollout_hash_v1(segment_id, user_id) < Decimal(str(percent)) / 100 * 2**48


def sample_of(segment_id: int, user_ids: Iterable[int], percent: float | str | Decimal) -> set[int]:
    """The sample that a percent is of these users."""
    ranked = sorted((rollout_hash_v1(segment_id, user_id), user_id) for user_id in user_ids)
    return {user_id for _, user_id in ranked[: sample_size(len(ranked), Decimal(str(percent)))]}


# --- What is -------------------------------------------------------------------------------------


async def members(sql: Sql, segment_id: int) -> dict[int, str]:
    """The cause of every active member."""
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


async def written(sql: Sql, segment_id: int) -> dict[tuple[str, str], int]:
    """How many rows of each operation and cause history has of a segment."""
    rows = await sql.fetch(
        """
        SELECT operation::text, cause::text, count(*) FROM history
        WHERE segment_id = $1 GROUP BY 1, 2 ORDER BY 1, 2
        """,
        segment_id,
    )
    return {(operation, cause): count for operation, cause, count in rows}


async def membership_ids(sql: Sql, segment_id: int) -> dict[int, int]:
    """Each member's membership, which is another after a leave and a join."""
    rows = await sql.fetch("SELECT user_id, id FROM memberships WHERE segment_id = $1", segment_id)
    return {row["user_id"]: row["id"] for row in rows}


async def rollout_of(database: Database, segment_id: int) -> Row[Any]:
    async with database.read() as session:
        return (await service.rollouts_by_segment(session, [segment_id]))[segment_id]


async def stored_users(sql: Sql) -> dict[int, int]:
    """The users there are, with their arrivals."""
    rows = await sql.fetch("SELECT id, arrival FROM users")
    return {row["id"]: row["arrival"] for row in rows}


# --- A worker's work, step by step ---------------------------------------------------------------


async def begin(database: Database, segment_id: int) -> passes.PendingSample:
    """Begin a pass, or find it begun; its sample is to be taken."""
    done = await database.transaction(lambda session: passes.advance(session, segment_id))
    assert isinstance(done, passes.PendingSample)
    return done


async def take(database: Database, sampling: passes.PendingSample) -> passes.Sample:
    async with database.long_read(seconds=60) as reading:
        sample = await passes.take_sample(reading, sampling)
    assert sample is not None
    return sample


async def store(database: Database, sampling: passes.PendingSample, sample: passes.Sample) -> None:
    await database.transaction(lambda session: passes.store_sample(session, sampling, sample))


async def begin_and_sample(database: Database, segment_id: int) -> passes.Sample:
    """Begin a pass and store its sample: what is left is chunks."""
    sampling = await begin(database, segment_id)
    sample = await take(database, sampling)
    await store(database, sampling, sample)
    return sample


async def chunk(database: Database, segment_id: int) -> passes.StepOutcome:
    """Work one chunk; what is to be done after it."""
    done = await database.transaction(lambda session: passes.advance(session, segment_id))
    assert isinstance(done, passes.StepOutcome)
    return done


async def finish(database: Database, segment_id: int) -> None:
    """Work until nothing is due: whoever found another worker at it had left."""

    async def finished() -> bool:
        await advance_rollout(database, segment_id)
        return not (await rollout_of(database, segment_id)).work_due

    await until(finished)
