"""A rollout of segment A at 50 %, and users inside and outside its sample."""

from datetime import timedelta
from typing import Any

from segmentql.adapters.database import Database
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.sampling import rollout_hash_v1
from tests.conftest import Api, Sql
from tests.operations import create_segment
from tests.rollouts.helpers import expected_sample, store_users

DAY = timedelta(days=1)
USERS = 20
HALF = sorted(expected_sample(1, range(1, USERS + 1), 50))
INSIDE = HALF[0]
"""A user in the sample of 50 % of users 1 to 20 in segment 1."""
OUTSIDE = min(set(range(1, USERS + 1)) - set(HALF))
LOW = min(range(100, 200), key=lambda user_id: rollout_hash_v1(1, user_id))
"""A user who joins at 50 % if stored later."""
HIGH = max(range(100, 200), key=lambda user_id: rollout_hash_v1(1, user_id))


async def start_half(api: Api, sql: Sql, database: Database, **rollout: Any) -> None:
    """Store users 1 to 20 and finish the pass of a rollout of segment A at 50 %."""
    await store_users(sql, USERS)
    await create_segment(api, slug="A", rollout={"percent": 50, **rollout})
    await advance_rollout(database, 1)
