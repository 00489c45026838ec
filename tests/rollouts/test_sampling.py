"""The hash of users is uniform, and samples have the exact size."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from statistics import NormalDist

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from segmentql.rollouts.sampling import HASH_BITS, rollout_hash_v1, sample_size
from segmentql.validators import MAX_USER_ID
from tests.conftest import Sql
from tests.rollouts.helpers import expected_sample

VECTORS = (
    (1, 1, 91456677054578),
    (1, 2, 154439858847099),
    (2, 1, 123539919502245),
    (9007199254740993, MAX_USER_ID, 148420721764546),
)
"""Published test vectors. Version 1 of the hash will never change."""

SEGMENTS = ((1, 2), (1, 1025), (7, 7 + 2**32), (255, 256))
"""Pairs of ids with equal low or high bits, and adjacent ids."""

RARE = 1e-6
"""Probability that a random hash exceeds a limit, on either side."""

HASHED = 20_000
BUCKETS = 100

numbers = st.integers(1, 2**63 - 1)
percents = st.integers(0, 100_000).map(lambda thousandths: Decimal(thousandths) / 1000)

on_one_database = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def bucket(segment_id: int, user_id: int, buckets: int) -> int:
    """Return which of `buckets` equal parts of the hash's range contains a user."""
    return rollout_hash_v1(segment_id, user_id) * buckets >> HASH_BITS


def chi_square(counted: Sequence[int], expected: float) -> float:
    return sum((count - expected) ** 2 / expected for count in counted)


def assert_by_chance(counted: Sequence[int], expected: float, degrees_of_freedom: int) -> None:
    """Check that counts are as uneven as random counts: neither more nor less.

    The limits are chi-square's quantiles as Wilson and Hilferty approximate them ("The
    Distribution of Chi-Square", 1931): some 41 to 181 for 99 degrees of freedom. Evenness has a
    limit as well, because a hash that only folds numbers up deals consecutive ones out like cards.
    """
    spread = 2 / (9 * degrees_of_freedom)
    low, high = (
        degrees_of_freedom * (1 - spread + NormalDist().inv_cdf(part) * spread**0.5) ** 3
        for part in (RARE, 1 - RARE)
    )
    assert low < chi_square(counted, expected) < high


# --- The hash -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("segment_id", "user_id", "published"), VECTORS)
async def test_python_and_database_return_the_published_hashes(
    sql: Sql, segment_id: int, user_id: int, published: int
) -> None:
    assert rollout_hash_v1(segment_id, user_id) == published
    assert await sql.fetchval("SELECT rollout_hash_v1($1, $2)", segment_id, user_id) == published


def test_docstring_contains_the_published_hashes() -> None:
    docstring = " ".join((rollout_hash_v1.__doc__ or "").split())
    for segment_id, user_id, published in VECTORS:
        assert f"segment {segment_id}, user {user_id}: {published}" in docstring


@on_one_database
@given(pairs=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=200))
@example(pairs=[(1, 1), (1, MAX_USER_ID), (2**63 - 1, 1), (2**63 - 1, MAX_USER_ID), (2**32, 2**32)])
async def test_python_and_database_hash_equally(sql: Sql, pairs: list[tuple[int, int]]) -> None:
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
def test_hashes_are_uniform_for_any_user_ids(user_ids: range, segment_id: int) -> None:
    assert len(user_ids) == HASHED
    counted = Counter(bucket(segment_id, user_id, BUCKETS) for user_id in user_ids)
    assert_by_chance(
        [counted[number] for number in range(BUCKETS)], HASHED / BUCKETS, degrees_of_freedom=99
    )


@pytest.mark.parametrize("user_ids", [range(1, HASHED + 1), range(1024, HASHED * 1024 + 1, 1024)])
@pytest.mark.parametrize("segments", SEGMENTS)
def test_hashes_of_two_segments_are_independent(segments: tuple[int, int], user_ids: range) -> None:
    one, other = segments
    counted = Counter((bucket(one, user, 10), bucket(other, user, 10)) for user in user_ids)
    table = [counted[row, column] for row in range(10) for column in range(10)]
    # The 100 expected counts are known, not estimated, so there are 99 degrees of freedom.
    assert_by_chance(table, HASHED / 100, degrees_of_freedom=99)


@pytest.mark.parametrize("segments", SEGMENTS)
def test_samples_of_ten_percent_overlap_by_one_percent(
    segments: tuple[int, int],
) -> None:
    one, other = (expected_sample(segment_id, range(1, HASHED + 1), 10) for segment_id in segments)
    assert (len(one), len(other)) == (2000, 2000)
    # Hypergeometric: mean 200, standard deviation 12.7. The limits are 4.9 deviations away.
    assert 138 <= len(one & other) <= 262


# --- Sample size --------------------------------------------------------------------------------


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
async def test_sample_size_is_rounded_half_up_as_in_the_database(
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
    # The same in integers: thousandths of a percent, plus one half before dividing.
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
def test_half_a_user_rounds_up(users: int, percent: str, size: int) -> None:
    assert sample_size(users, Decimal(percent)) == size
