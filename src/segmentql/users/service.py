"""Rules and SQL of users."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, text

from segmentql.adapters.database import ReadSession, WriteSession
from segmentql.errors import InvalidInput, MutationRejected, UserAlreadyExists, UserNotFound
from segmentql.principal import ANONYMOUS, Actor
from segmentql.tables import Cause
from segmentql.timestamps import CHANGE_OF_USER
from segmentql.users.records import UserRecord
from segmentql.validators import MAX_USER_ID

MAX_CONFLICT_RETRIES: Final = 10
"""The number of attempts if other clients store or delete the same user concurrently."""

_STORE = text("""
INSERT INTO users (id, created_at, created_by, created_by_api_key_id)
VALUES (:user_id, clock_timestamp(), :actor, :api_key_id)
ON CONFLICT (id) DO NOTHING
RETURNING id AS user_id, created_at AS user_created_at
""")

_BY_IDS = text("""
SELECT id AS user_id, created_at AS user_created_at FROM users WHERE id = ANY(:user_ids)
""")

_PAGE = text("""
SELECT id AS user_id, created_at AS user_created_at
FROM users WHERE id > :after ORDER BY id LIMIT :rows
""")

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

_LOCK_TO_DELETE = text("SELECT id FROM users WHERE id = :user_id FOR UPDATE")

_DELETE = text(f"""
WITH {CHANGE_OF_USER},
ended AS (DELETE FROM memberships m USING change WHERE m.user_id = :user_id),
admitted AS (DELETE FROM exclusions WHERE user_id = :user_id),
kept AS (
    INSERT INTO deleted_users (id, deleted_at) SELECT :user_id, at FROM change
    ON CONFLICT (id) DO UPDATE SET deleted_at = excluded.deleted_at
)
DELETE FROM users WHERE id = :user_id
""")


def user_record(row: Row[Any]) -> UserRecord:
    """Build the record from a row with `user_id` and `user_created_at`."""
    return UserRecord(row.user_id, row.user_created_at)


async def create_user(
    session: WriteSession, user_id: int | None, *, actor: Actor = ANONYMOUS
) -> UserRecord:
    """Store a user.

    Args:
        session: The session.
        user_id: The user's id. None allocates the lowest id above the last allocated one that was
            never stored.
        actor: The author of the change.

    Raises:
        MutationRejected: the id is already stored, or no id is left to allocate.
    """
    if user_id is None:
        return await _create_user_with_next_id(session, actor)
    values = {"user_id": user_id, "actor": actor.name, "api_key_id": actor.api_key_id}
    for _ in range(MAX_CONFLICT_RETRIES):
        stored = (await session.execute(_STORE, values)).one_or_none()
        if stored:
            return user_record(stored)
        existing = (await session.execute(_BY_IDS, {"user_ids": [user_id]})).one_or_none()
        if existing:
            raise MutationRejected(UserAlreadyExists(("id",), user=user_record(existing)))
    raise AssertionError("other clients stored and deleted the user at every attempt")


async def _create_user_with_next_id(session: WriteSession, actor: Actor) -> UserRecord:
    last_id = (await session.execute(_LOCK_ID_ALLOCATOR)).scalar_one()
    values = {"last_id": last_id, "actor": actor.name, "api_key_id": actor.api_key_id}
    for _ in range(MAX_CONFLICT_RETRIES):
        row = (await session.execute(_ALLOCATE_ID, values)).one()
        if row.none_left:
            raise MutationRejected(
                InvalidInput(("id",), "no id is left to allocate", "an id that is not stored")
            )
        if row.user_id is not None:
            return user_record(row)
    raise AssertionError("other clients stored the allocated id at every attempt")


async def delete_user(session: WriteSession, user_id: int, *, actor: Actor) -> None:
    """Delete a user. The memberships end, the exclusions are deleted and the history stays.

    Raises:
        MutationRejected: the user is not stored.
    """
    if not (await session.execute(_LOCK_TO_DELETE, {"user_id": user_id})).one_or_none():
        raise MutationRejected(UserNotFound(("id",), user_id))
    await session.execute(
        _DELETE,
        {
            "user_id": user_id,
            "cause": Cause.USER_DELETED,
            "actor": actor.name,
            "api_key_id": actor.api_key_id,
        },
    )


async def users_by_id(session: ReadSession, user_ids: Sequence[int]) -> dict[int, UserRecord]:
    """Return the users that are stored."""
    rows = await session.execute(_BY_IDS, {"user_ids": list(user_ids)})
    return {row.user_id: user_record(row) for row in rows}


async def user_page(session: ReadSession, *, after: int, rows: int) -> list[UserRecord]:
    """Return up to `rows` users with ids above `after`, by id."""
    page = await session.execute(_PAGE, {"after": after, "rows": rows})
    return [user_record(row) for row in page]
