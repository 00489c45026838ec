"""The allocation of ids to users that `createUser` stores without an id and without a key."""

from typing import Final

from sqlalchemy import text

from segmentql.adapters.sessions import WriteSession
from segmentql.errors import InvalidInput, MutationRejected
from segmentql.principal import Actor
from segmentql.users.records import UserRecord
from segmentql.validators import MAX_USER_ID

MAX_ATTEMPTS: Final = 10
"""The number of attempts if other clients store the allocated id concurrently."""

_LOCK_ID_ALLOCATOR = text("SELECT user_id FROM id_allocator FOR UPDATE")

# Returns the lowest id above the last allocated one that was never stored. The query skips ranges
# of 1000 ids that are all used, so a gap after millions of used ids takes about one second. Without
# the ranges the planner sorts all users.
_ALLOCATE_ID = text(f"""
WITH RECURSIVE stored AS (
    SELECT CAST(:last_id AS bigint) AS up_to
    UNION ALL
    SELECT up_to + 1000 FROM stored
    WHERE up_to <= {MAX_USER_ID - 1000} AND 1000 = (
        SELECT count(*) FROM (
            SELECT id FROM users WHERE id > up_to AND id <= up_to + 1000
            UNION
            SELECT id FROM deleted_users WHERE id > up_to AND id <= up_to + 1000
        ) AS next_thousand
    )
), free AS (
    SELECT min(number) AS id
    FROM (SELECT max(up_to) AS up_to FROM stored) AS stored,
        generate_series(up_to, least(up_to, {MAX_USER_ID - 1000}) + 1000) AS number
    WHERE number > up_to
      AND NOT EXISTS (SELECT FROM users u WHERE u.id = number)
      AND NOT EXISTS (SELECT FROM deleted_users d WHERE d.id = number)
), allocated AS (
    INSERT INTO users (id, created_at, created_by, created_by_api_key_id)
    SELECT id, clock_timestamp(), CAST(:actor AS text), CAST(:api_key_id AS text)
    FROM free WHERE id IS NOT NULL
    ON CONFLICT (id) DO NOTHING
    RETURNING id, created_at
), moved AS (
    UPDATE id_allocator SET user_id = allocated.id FROM allocated
)
SELECT allocated.id AS user_id, allocated.created_at AS user_created_at,
    free.id IS NULL AS none_left
FROM free LEFT JOIN allocated ON true
""")


async def create_user_with_next_id(session: WriteSession, *, actor: Actor) -> UserRecord:
    """Store a user with the lowest id above the last allocated one that was never stored.

    Raises:
        MutationRejected: no id is left to allocate.
    """
    last_id = (await session.execute(_LOCK_ID_ALLOCATOR)).scalar_one()
    values = {"last_id": last_id, "actor": actor.name, "api_key_id": actor.api_key_id}
    for _ in range(MAX_ATTEMPTS):
        row = (await session.execute(_ALLOCATE_ID, values)).one()
        if row.none_left:
            raise MutationRejected(
                InvalidInput(("id",), "no id is left to allocate", "an id that is not stored")
            )
        if row.user_id is not None:
            return UserRecord(row.user_id, row.user_created_at, key=None)
    raise AssertionError("other clients stored the allocated id at every attempt")
