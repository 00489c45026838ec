"""The database finds the bound of a sample: the k-th smallest (hash, id)."""

from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.rollouts.sampling import (
    BOUND_QUERY,
    PendingSample,
    Sample,
    rollout_hash_v1,
    sample_size,
    take_sample,
)
from tests.conftest import Sql, empty_tables
from tests.rollouts.helpers import store_users

TIES = ((2062704, 14247878), (1190104, 20964203), (8977923, 13839694))
"""All pairs among the users 1 to 30,000,000 who have the same hash for segment 1."""

numbers = st.integers(1, 2**63 - 1)
percents = st.integers(1, 100_000).map(lambda thousandths: Decimal(thousandths) / 1000)


async def store(sql: Sql, user_ids: Sequence[int]) -> None:
    await sql.execute(
        "INSERT INTO users (id, created_at) SELECT id, now() FROM unnest($1::bigint[]) AS id",
        user_ids,
    )


async def sampled(database: Database, segment_id: int, percent: Decimal) -> Sample:
    async with database.long_read(seconds=60) as session:
        sample = await take_sample(session, PendingSample(segment_id, 1, percent))
    assert sample is not None
    return sample


def ranked(segment_id: int, user_ids: Sequence[int]) -> list[tuple[int, int]]:
    return sorted((rollout_hash_v1(segment_id, user_id), user_id) for user_id in user_ids)


async def up_to(sql: Sql, segment_id: int, bound: tuple[int, int]) -> set[int]:
    """Return the stored users whose (hash, id) is at most the bound."""
    rows = await sql.fetch(
        "SELECT id FROM users WHERE (rollout_hash_v1($1, id), id) <= ($2::bigint, $3::bigint)",
        segment_id,
        *bound,
    )
    return {row["id"] for row in rows}


@st.composite
def users_of_any_number(draw: st.DrawFn) -> list[int]:
    """Up to 4000 user ids, close to each other or spread over the whole range."""
    count = draw(st.integers(0, 30) | st.integers(0, 4000))
    # A sequence that wraps around at 2^63 has no duplicates if its step is odd.
    first, step = draw(numbers), 2 * draw(st.integers(0, 10) | st.integers(0, 2**62 - 1)) + 1
    return [number for number in ((first + step * n) % 2**63 for n in range(count)) if number]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    segment_id=numbers,
    user_ids=users_of_any_number(),
    asked=st.lists(percents, min_size=1, max_size=4),
)
@example(segment_id=1, user_ids=[], asked=[Decimal(50)])
@example(segment_id=1, user_ids=[1], asked=[Decimal("49.999"), Decimal(50)])
@example(segment_id=1, user_ids=[1, 2, 3], asked=[Decimal("0.001"), Decimal(50), Decimal(100)])
async def test_bound_is_the_kth_smallest_and_grows_with_the_percent(
    sql: Sql, database: Database, segment_id: int, user_ids: list[int], asked: list[Decimal]
) -> None:
    await empty_tables(sql)
    await store(sql, user_ids)
    in_order = ranked(segment_id, user_ids)
    before: set[int] = set()
    for percent in sorted(asked):
        size = sample_size(len(user_ids), percent)
        sample_found = await sampled(database, segment_id, percent)
        bound = (sample_found.bound_hash, sample_found.bound_user_id)
        assert (sample_found.users_total, sample_found.last_insert_seq) == (
            len(user_ids),
            len(user_ids),
        )
        assert bound == (in_order[size - 1] if size else (-1, 0))
        within = await up_to(sql, segment_id, bound)
        assert len(within) == size
        assert before <= within
        before = within


async def test_sample_of_33_333_percent_of_100_000_users(sql: Sql, database: Database) -> None:
    user_ids = await store_users(sql, 100_000)
    sample_found = await sampled(database, 1, Decimal("33.333"))
    assert sample_found == Sample(100_000, *ranked(1, user_ids)[33_333 - 1], users_total=100_000)


async def test_sample_at_0_percent_is_empty_and_counts_only_members(
    sql: Sql, database: Database
) -> None:
    await store_users(sql, 10)
    assert await sampled(database, 1, Decimal(0)) == Sample(10, -1, 0, users_total=0)


@pytest.mark.parametrize("percent", ["0.001", "37.5", "100"])
async def test_users_stored_later_are_not_in_the_sample(
    sql: Sql, database: Database, percent: str
) -> None:
    before = await store_users(sql, 1000)
    later = await store_users(sql, 3000, first=1001)
    statement = text(BOUND_QUERY)
    asked = {"segment_id": 1, "percent": Decimal(percent)}
    for last_insert_seq, user_ids in ((1000, before), (4000, range(before.start, later.stop))):
        async with database.read() as session:
            sample_found = (
                await session.execute(statement, {**asked, "last_insert_seq": last_insert_seq})
            ).one()
        size = sample_size(len(user_ids), Decimal(percent))
        last = ranked(1, user_ids)[size - 1] if size else (-1, 0)
        assert tuple(sample_found) == (len(user_ids), *last)


async def test_created_at_does_not_decide_who_is_a_later_user(sql: Sql, database: Database) -> None:
    await store_users(sql, 100)
    # A bulk load may set its own dates.
    await store_users(sql, 100, first=101)
    await sql.execute("UPDATE users SET created_at = '2001-01-01' WHERE id > 100")
    async with database.read() as session:
        sample_found = (
            await session.execute(
                text(BOUND_QUERY), {"segment_id": 1, "percent": Decimal(50), "last_insert_seq": 100}
            )
        ).one()
    assert tuple(sample_found) == (100, *ranked(1, range(1, 101))[49])


@pytest.mark.parametrize("tie", TIES)
async def test_equal_hashes_are_ordered_by_user_id(
    sql: Sql, database: Database, tie: tuple[int, int]
) -> None:
    first, second = tie
    shared = rollout_hash_v1(1, first)
    assert rollout_hash_v1(1, second) == shared
    user_ids = [*range(1, 999), second, first]
    await store(sql, user_ids)
    smaller = sum(hashed < shared for hashed, _ in ranked(1, user_ids))
    # Bounds before, between and after the two users: of 1000 users, in tenths of a percent.
    cuts = {
        size: await sampled(database, 1, Decimal(size) / 10)
        for size in (smaller, smaller + 1, smaller + 2)
    }
    insiders = {
        size: await up_to(sql, 1, (sample_found.bound_hash, sample_found.bound_user_id))
        for size, sample_found in cuts.items()
    }
    assert [len(insiders[size]) for size in cuts] == list(cuts)
    assert [insiders[size] & {first, second} for size in cuts] == [set(), {first}, {first, second}]
    assert [cuts[size].bound_user_id for size in cuts][1:] == [first, second]
