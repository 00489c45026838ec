"""The sample of a rollout: a hash of each user, and a bound on the smallest hashes.

Every user has a hash for each segment. The sample of N users at a percent is the k users with the
smallest (hash, id), where k is N x percent / 100, rounded half up.

- Exact: no two users have the same (hash, id), so the k smallest are defined for every k.
- Uniform: SHA-256 has no known structure, so every set of k users is equally likely, whatever ids
  users have. The segment is part of the hash, so the samples of two segments are independent.
- Monotone: the k smallest are among the k + 1 smallest. So raising the percent keeps every user of
  the sample, lowering it adds no user, and neither depends on earlier changes.

Finding the k-th smallest needs no sort of all users. One scan counts the hashes in 4096 ranges of
equal width (a histogram). The running sum gives the range of the k-th hash and its rank there. Only
the users of that range, about one in 4096, are sorted.
"""

import hashlib
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

HASH_BITS: Final = 48
"""Enough bits that ties are rare, few enough that JavaScript numbers are exact."""


def rollout_hash_v1(segment_id: int, user_id: int) -> int:
    """Hash a user for a segment, from 0 to 2^48 - 1. Version 1 will never change.

    The input is 16 bytes: the segment's id (the number in `seg_<number>`) and the user's id, each
    as 8 bytes, big-endian. The hash is the first 6 bytes of its SHA-256, as a big-endian number.
    The service uses the PostgreSQL function of the same name. Test vectors:

    segment 1, user 1: 91456677054578; segment 1, user 2: 154439858847099;
    segment 2, user 1: 123539919502245; segment 9007199254740993, user 9223372036854775807:
    148420721764546.

    Source: SHA-256 is defined in FIPS 180-4.
    """
    both = segment_id.to_bytes(8, "big") + user_id.to_bytes(8, "big")
    return int.from_bytes(hashlib.sha256(both).digest()[: HASH_BITS // 8], "big")


def sample_size(users: int, percent: Decimal) -> int:
    """Return a percent of a number of users, rounded half up."""
    return int((users * percent / 100).to_integral_value(ROUND_HALF_UP))


HISTOGRAM_RANGES: Final = 4096

BOUND_QUERY: Final = f"""
WITH counted AS MATERIALIZED (
    SELECT rollout_hash_v1(:segment_id, id) / {2**HASH_BITS // HISTOGRAM_RANGES} AS range,
        count(*) AS users
    FROM users WHERE insert_seq <= :last_insert_seq GROUP BY 1
), cumulated AS (
    SELECT range, users, sum(users) OVER (ORDER BY range) AS running_total FROM counted
), sample AS (
    SELECT coalesce(sum(users), 0) AS total,
        round(coalesce(sum(users), 0) * CAST(:percent AS numeric) / 100) AS size
    FROM counted
), boundary AS (
    SELECT range, size - (running_total - users) AS rank
    FROM cumulated, sample WHERE size > running_total - users AND size <= running_total
), smallest AS (
    SELECT rollout_hash_v1(:segment_id, id) AS hash, id
    FROM users
    WHERE insert_seq <= :last_insert_seq
      AND rollout_hash_v1(:segment_id, id) / {2**HASH_BITS // HISTOGRAM_RANGES}
        = (SELECT range FROM boundary)
    ORDER BY hash, id LIMIT (SELECT rank FROM boundary)
)
SELECT CAST(total AS bigint) AS users_total, coalesce(hash, -1) AS bound_hash,
    coalesce(id, 0) AS bound_user_id
FROM sample
LEFT JOIN LATERAL (SELECT * FROM smallest ORDER BY hash DESC, id DESC LIMIT 1) AS last ON true
"""
"""The statement that counts users and finds the last user of the sample.

Its parameters are `:segment_id`, `:percent` and `:last_insert_seq`; users inserted later are not
counted. Its row is `users_total` and (`bound_hash`, `bound_user_id`), which is (-1, 0) for an empty
sample. It reads all users twice and sorts about one in 4096. It is one statement, so that it sees
one snapshot.
"""
