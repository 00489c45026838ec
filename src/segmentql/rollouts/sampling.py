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

import asyncio
import hashlib
import time
from dataclasses import asdict, dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from sqlalchemy import text

from segmentql.adapters.sessions import ReadSession, WriteSession

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

SAMPLE_TIMEOUT_SECONDS: Final = 600
"""Time limit for taking a sample, which takes about 0.8 s per million users."""

INSERT_WAIT_SECONDS: Final = 30
"""How long one attempt waits for in-flight inserts of users. A bulk load may take longer."""

POLL_INTERVAL_SECONDS: Final = 0.01

SAMPLING_LOCK_CLASS: Final = 7002

# Disable parallel workers to leave CPU for requests.
DISABLE_PARALLEL_QUERY = text("SET LOCAL max_parallel_workers_per_gather = 0")

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
    await session.execute(DISABLE_PARALLEL_QUERY)
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
