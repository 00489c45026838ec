"""Who is of a sample: the hash, and how many users a percent is."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from statistics import NormalDist

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from segmentql.rollouts.sampling import HASH_BITS, rollout_hash_v1, sample_size
from segmentql.values import MAX_USER_ID
from tests.conftest import Sql
from tests.rollouts.helpers import sample_of

VECTORS = (
    (1, 1, 91456677054578),
    (1, 2, 154439858847099),
    (2, 1, 123539919502245),
    (9007199254740993, MAX_USER_ID, 148420721764546),
)
"""Published; version 1 of the hash will never give anything else."""

SEGMENTS = ((1, 2), (1, 1025), (7, 7 + 2**32), (255, 256))
"""Numbers alike in their low or high bits, and neighbours."""

RARE = 1e-6
"""How rarely chance alone would go beyond a limit below, on either side."""

HASHED = 20_000
BUCKETS = 100

numbers = st.integers(1, 2**63 - 1)
percents = st.integers(0, 100_000).map(lambda thousandths: Decimal(thousandths) / 1000)

on_one_database = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def bucket(segment_id: int, user_id: int, buckets: int) -> int:
    """Which of so many equal parts of the hash's range a user is in."""
    return rollout_hash_v1(segment_id, user_id) * buckets >> HASH_BITS


def chi_square(found: Sequence[int], expected: float) -> float:
    return sum((count - expected) ** 2 / expected for count in found)


def assert_by_chance(found: Sequence[int], expected: float, degrees_of_freedom: int) -> None:
    """Counts are as uneven as chance makes them: neither more so, nor too even to be true.

    The limits are chi-square's quantiles as Wilson and Hilferty approximate them ("The
    Distribution of Chi-Square", 1931): some 41 to 181 for 99 degrees of freedom. Evenness has a
    limit as well, because a hash that only folds numbers up deals consecutive ones out like cards.
    """
    spread = 2 / (9 * degrees_of_freedom)
    low, high = (
        degrees_of_freedom * (1 - spread + NormalDist().inv_cdf(part) * spread**0.5) ** 3
        for part in (RARE, 1 - RARE)
    )
    assert low < chi_square(found, expected) < high


# --- The hash -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("segment_id", "user_id", "published"), VECTORS)
async def test_the_hash_is_the_published_one_in_python_and_in_the_database(
    sql: Sql, segment_id: int, user_id: int, published: int
) -> None:
    assert rollout_hash_v1(segment_id, user_id) == published
    assert await sql.fetchval("SELECT rollout_hash_v1($1, $2)", segment_id, user_id) == published


def test_the_published_hashes_are_those_of_the_docstring() -> None:
    told = " ".join((rollout_hash_v1.__doc__ or "").split())
    for segment_id, user_id, published in VECTORS:
        assert f"segment {segment_id}, user {user_id}: {published}" in told


@on_one_database
@given(pairs=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=200))
@example(pairs=[(1, 1), (1, MAX_USER_ID), (2**63 - 1, 1), (2**63 - 1, MAX_USER_ID), (2**32, 2**32)])
async def test_python_and_the_database_hash_alike(sql: Sql, pairs: list[tuple[int, int]]) -> None:
    rows = await sql.fetch(
        """
        SELECT rollout_hash_v1(segment_id, user_id) AS hash
        FROM unnest($1::bigint[], $2::bigint[]) AS pair (segment_id, user_id)
        """,
        [segment_id for segment_id, _ in pairs],
        [user_id for _, user_id in pairs],
    )
    hashes = [rollout_hash_v1(*pair) for pair in pairs]
    assert [row["hash"] for row in rows] == hashes
    assert all(0 <= hashed < 2**HASH_BITS for hashed in hashes)


@pytest.mark.parametrize("segment_id", [1, 2, 2**40])
@pytest.mark.parametrize(
    "user_ids",
    [
        range(1, HASHED + 1),
        range(1024, (HASHED + 1) * 1024, 1024),
        range(MAX_USER_ID - HASHED + 1, MAX_USER_ID + 1),
        range(2**32, 2**32 * (HASHED + 1), 2**32),
    ],
    ids=["consecutive", "multiples of 1024", "huge", "multiples of 2^32"],
)
def test_hashes_are_uniform_whatever_numbers_users_have(user_ids: range, segment_id: int) -> None:
    assert len(user_ids) == HASHED
    found = Counter(bucket(segment_id, user_id, BUCKETS) for user_id in user_ids)
    assert_by_chance(
        [found[number] for number in range(BUCKETS)], HASHED / BUCKETS, degrees_of_freedom=99
    )


@pytest.mark.parametrize("user_ids", [range(1, HASHED + 1), range(1024, HASHED * 1024 + 1, 1024)])
@pytest.mark.parametrize("segments", SEGMENTS)
def test_where_a_user_is_for_one_segment_says_nothing_of_another(
    segments: tuple[int, int], user_ids: range
) -> None:
    one, other = segments
    found = Counter((bucket(one, user, 10), bucket(other, user, 10)) for user in user_ids)
    table = [found[row, column] for row in range(10) for column in range(10)]
    # A hundred equal chances, not estimated from the counts: so 99, and not 9 x 9.
    assert_by_chance(table, HASHED / 100, degrees_of_freedom=99)


@pytest.mark.parametrize("segments", SEGMENTS)
def test_a_tenth_for_one_segment_and_a_tenth_for_another_share_a_hundredth(
    segments: tuple[int, int],
) -> None:
    one, other = (sample_of(segment_id, range(1, HASHED + 1), 10) for segment_id in segments)
    assert (len(one), len(other)) == (2000, 2000)
    # 200 are to be expected; hypergeometric, with a standard deviation of 12.7. Limits at 4.9.
    assert 138 <= len(one & other) <= 262


# --- How many -----------------------------------------------------------------------------------


@on_one_database
@given(pairs=st.lists(st.tuples(st.integers(0, 10**7), percents), min_size=1, max_size=200))
@example(
    pairs=[
        *[(users, Decimal(50)) for users in range(6)],
        (0, Decimal(100)),
        (49_999, Decimal("0.001")),
        (50_000, Decimal("0.001")),
        (9_950_000, Decimal("0.003")),
        (9_999_999, Decimal("99.999")),
        (10**7, Decimal(100)),
    ]
)
async def test_the_size_of_a_sample_is_rounded_half_up_as_by_the_database(
    sql: Sql, pairs: list[tuple[int, Decimal]]
) -> None:
    rows = await sql.fetch(
        """
        SELECT round(users * percent / 100)::bigint AS size
        FROM unnest($1::numeric[], $2::numeric[]) AS pair (users, percent)
        """,
        [users for users, _ in pairs],
        [percent for _, percent in pairs],
    )
    sizes = [sample_size(users, percent) for users, percent in pairs]
    assert [row["size"] for row in rows] == sizes
    # In whole numbers: of 100,000 thousandths of a percent, and half of that added.
    assert sizes == [(users * int(percent * 1000) + 50_000) // 100_000 for users, percent in pairs]


@pytest.mark.parametrize(
    ("users", "percent", "size"),
    [
        (0, "100", 0),
        (1, "49.999", 0),
        (1, "50", 1),
        (3, "50", 2),
        (5, "50", 3),
        (200, "50", 100),
        (100_000, "33.333", 33_333),
        (1_000_000, "0.001", 10),
    ],
)
def test_half_a_user_is_one(users: int, percent: str, size: int) -> None:
    assert sample_size(users, Decimal(percent)) == size
