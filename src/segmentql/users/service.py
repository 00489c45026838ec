"""Rules and SQL of users."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, text

from segmentql.adapters.database import ReadSession, WriteSession
from segmentql.errors import InvalidInput, MutationRejected, UserAlreadyExists, UserNotFound
from segmentql.tables import Cause
from segmentql.timestamps import CHANGE_OF_USER
from segmentql.validators import MAX_USER_ID

MAX_RACES: Final = 10
"""Tries of a statement that lost against another client storing or deleting the same user."""

_STORE = text("""
INSERT INTO users (id, created_at) VALUES (:user_id, clock_timestamp())
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

# The lowest number above the last pick that was never stored. Numbers stored one after another
# are skipped a thousand at a time by index ranges, so that a gap close by is found at once and one
# beyond millions in a second or so; the planner would rather sort all users.
_ALLOCATE_ID = text(f"""
WITH RECURSIVE stored AS (
    SELECT CAST(:id_allocator AS bigint) AS up_to
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
), picked AS (
    INSERT INTO users (id, created_at)
    SELECT id, clock_timestamp() FROM free WHERE id IS NOT NULL
    ON CONFLICT (id) DO NOTHING
    RETURNING id, created_at
), moved AS (
    UPDATE id_allocator SET user_id = picked.id FROM picked
)
SELECT picked.id AS user_id, picked.created_at AS user_created_at, free.id IS NULL AS none_left
FROM free LEFT JOIN picked ON true
""")

_LOCK_TO_DELETE = text("SELECT id FROM users WHERE id = :user_id FOR UPDATE")

_DELETE = text(f"""
WITH {CHANGE_OF_USER},
left_all AS (DELETE FROM memberships m USING change WHERE m.user_id = :user_id),
admitted AS (DELETE FROM exclusions WHERE user_id = :user_id),
remembered AS (
    INSERT INTO deleted_users (id, deleted_at) SELECT :user_id, at FROM change
    ON CONFLICT (id) DO UPDATE SET deleted_at = excluded.deleted_at
)
DELETE FROM users WHERE id = :user_id
""")


async def create_user(session: WriteSession, user_id: int | None) -> Row[Any]:
    """Store a user; without a number, under the lowest above the last pick never stored.

    Raises:
        Refused: the number is stored already, or no number is left to pick.
    """
    if user_id is None:
        return await _allocate_id(session)
    for _ in range(MAX_RACES):
        stored = (await session.execute(_STORE, {"user_id": user_id})).one_or_none()
        if stored:
            return stored
        there = (await session.execute(_BY_IDS, {"user_ids": [user_id]})).one_or_none()
        if there:
            raise MutationRejected(UserAlreadyExists(("id",), user=there))
    raise AssertionError("a user was stored and deleted again and again")


async def _allocate_id(session: WriteSession) -> Row[Any]:
    id_allocator = (await session.execute(_LOCK_ID_ALLOCATOR)).scalar_one()
    for _ in range(MAX_RACES):
        row = (await session.execute(_ALLOCATE_ID, {"id_allocator": id_allocator})).one()
        if row.none_left:
            raise MutationRejected(
                InvalidInput(("id",), "no number is left to pick", "a number of yours")
            )
        if row.user_id is not None:
            return row
    raise AssertionError("every number picked was stored by another at the same moment")


async def delete_user(session: WriteSession, user_id: int, *, actor: str | None) -> None:
    """Delete a user: memberships end now, history stays, exclusions are forgotten.

    Raises:
        Refused: the user is not stored.
    """
    if not (await session.execute(_LOCK_TO_DELETE, {"user_id": user_id})).one_or_none():
        raise MutationRejected(UserNotFound(("id",), user_id))
    await session.execute(
        _DELETE, {"user_id": user_id, "cause": Cause.USER_DELETED, "actor": actor}
    )


async def users_by_id(session: ReadSession, user_ids: Sequence[int]) -> dict[int, Row[Any]]:
    """Read the users that are stored now."""
    rows = await session.execute(_BY_IDS, {"user_ids": list(user_ids)})
    return {row.user_id: row for row in rows}


async def user_page(session: ReadSession, *, after: int, rows: int) -> Sequence[Row[Any]]:
    """Read users by number, those above `after`."""
    return (await session.execute(_PAGE, {"after": after, "rows": rows})).all()
