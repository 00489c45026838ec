"""A rollout among the users of three chunks."""

from segmentql.rollouts.chunks import CHUNK_USERS
from tests.conftest import Sql
from tests.rollouts.helpers import expected_sample, history_counts
from tests.rollouts.worker_helpers import assert_members_are

USERS = range(1, 2 * CHUNK_USERS + 2_001)
"""Users of three chunks; the last chunk is short."""


def in_third_chunk(segment_id: int, percent: float) -> int:
    """Return a user of the sample in the third chunk."""
    sample = expected_sample(segment_id, USERS, percent)
    return min(user_id for user_id in sample if user_id > 2 * CHUNK_USERS)


async def assert_exact(sql: Sql, segment_id: int, users: range, percent: float) -> None:
    """Check that exactly the sample joined, each user once."""
    sample = expected_sample(segment_id, users, percent)
    await assert_members_are(sql, segment_id, sample)
    assert await history_counts(sql, segment_id) == {("JOINED", "ROLLOUT"): len(sample)}
