"""Who is of a rollout's sample: a hash, and the bound of the smallest hashes.

Every user has a hash for each segment. The sample of N stored users at a percent is the k users
with the smallest (hash, user), where k is N x percent / 100, rounded half up.

- Exact: (hash, user) has no ties, so that there are k smallest whatever k is.
- Uniform: SHA-256 has no known structure, so each k users are as likely as any other, whatever
  numbers users have; and two segments' samples are independent, for the segment is hashed too.
- Monotone: the k smallest are among the k + 1 smallest. So raising the percent keeps everyone,
  lowering it lets in nobody, and neither depends on what was done before.

To find the k-th smallest, nothing need be sorted: one scan counts the hashes in 4096 ranges of
equal width (a histogram), whose running sum says in which range the k-th lies and as which of it,
and only the users of that range, one in 4096, are put in order.
"""

import hashlib
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

HASH_BITS: Final = 48
"""Enough to make ties rare among all people, few enough for the numbers of JavaScript."""


def rollout_hash_v1(segment_number: int, user_id: int) -> int:
    """Hash a user for a segment, 0 to 2^48 - 1: version 1, which will never change.

    It is the first six bytes, as a big-endian number, of the SHA-256 (FIPS 180-4) of the two
    numbers as eight bytes each, big-endian: the segment's own (`seg_<number>`), then the user's.
    PostgreSQL's function of the same name is the one in use. Test vectors:

    segment 1, user 1: 91456677054578; segment 1, user 2: 154439858847099;
    segment 2, user 1: 123539919502245; segment 9007199254740993, user 9223372036854775807:
    148420721764546.
    """
    both = segment_number.to_bytes(8, "big") + user_id.to_bytes(8, "big")
    return int.from_bytes(hashlib.sha256(both).digest()[: HASH_BITS // 8], "big")


def sample_size(users: int, percent: Decimal) -> int:
    """How many of so many users a percent is, rounded half up."""
    return int((users * percent / 100).to_integral_value(ROUND_HALF_UP))


HISTOGRAM_RANGES: Final = 4096

BOUND: Final = f"""
WITH counted AS MATERIALIZED (
    SELECT rollout_hash_v1(:segment_id, id) / {2**HASH_BITS // HISTOGRAM_RANGES} AS range,
        count(*) AS users
    FROM users WHERE arrival <= :last_arrival GROUP BY 1
), summed AS (
    SELECT range, users, sum(users) OVER (ORDER BY range) AS up_to FROM counted
), sample AS (
    SELECT coalesce(sum(users), 0) AS total,
        round(coalesce(sum(users), 0) * CAST(:percent AS numeric) / 100) AS size
    FROM counted
), boundary AS (
    SELECT range, size - (up_to - users) AS place
    FROM summed, sample WHERE size > up_to - users AND size <= up_to
), last AS (
    SELECT rollout_hash_v1(:segment_id, id) AS hash, id
    FROM users
    WHERE arrival <= :last_arrival
      AND rollout_hash_v1(:segment_id, id) / {2**HASH_BITS // HISTOGRAM_RANGES}
        = (SELECT range FROM boundary)
    ORDER BY hash, id LIMIT (SELECT place FROM boundary)
)
SELECT CAST(total AS bigint) AS users_total, coalesce(hash, -1) AS bound_hash,
    coalesce(id, 0) AS bound_user_id
FROM sample LEFT JOIN LATERAL (SELECT * FROM last ORDER BY hash DESC, id DESC LIMIT 1) AS l ON true
"""
"""The statement that counts users and finds the last of the sample.

Takes `:segment_id`, `:last_arrival` (later users are none of its) and `:percent`; answers
`users_total` and (`bound_hash`, `bound_user_id`), which is (-1, 0) where nobody is of the sample.
It reads all users twice and keeps one in 4096; one statement, so that it sees one state.
"""
