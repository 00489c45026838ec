"""Rules and SQL of users."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, text

from segmentql.adapters.autocommit import array_parameter
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.errors import InvalidInput, MutationRejected, UserAlreadyExists, UserNotFound
from segmentql.principal import Actor
from segmentql.timestamps import DELETION_OF_USER
from segmentql.users.id_allocation import create_user_with_next_id
from segmentql.users.records import UserDeletion, UserRecord

MAX_CONFLICT_RETRIES: Final = 10
"""The number of attempts if other clients store or delete the same user concurrently."""

USER_COLUMNS: Final = "u.id AS user_id, u.created_at AS user_created_at, u.key AS user_key"
"""The columns of `user_record`, for statements that read users as `u`."""

# A transaction that stores a new key takes the lock shared, and one that sets the key of a stored
# user takes it exclusively. So an UPDATE never violates the unique index on keys. The error would
# write the key into PostgreSQL's log.
USER_KEY_LOCK_CLASS: Final = 7003


def user_key_lock_number(key: str) -> str:
    """Return the SQL of the second integer of a key's advisory lock, 0 to 63."""
    return f"(hashtext({key}) & 63)"


USER_KEY_LOCK: Final = f"{USER_KEY_LOCK_CLASS}, {user_key_lock_number(':user_key')}"
"""The two integers of the advisory lock of a user's key.

Keys share 64 locks, so that a transaction that stores thousands of keys does not fill PostgreSQL's
table of locks. Transactions take them after the locks of segments and before those of users.
"""

# Without an id, the user is stored by the key only, and gets an id from a sequence.
_STORE = text(f"""
WITH key_lock AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared({USER_KEY_LOCK}))
INSERT INTO users AS u (id, key, created_at, created_by, created_by_api_key_id)
SELECT coalesce(CAST(:user_id AS bigint), next_id_for_key()), CAST(:user_key AS text),
    clock_timestamp(), CAST(:actor AS text), CAST(:api_key_id AS text)
FROM key_lock
ON CONFLICT DO NOTHING
RETURNING {USER_COLUMNS}
""")

_BY_IDS = text(
    f"SELECT {USER_COLUMNS} FROM users u WHERE id = ANY({array_parameter('user_ids', 'bigint')})"
)

_BY_KEYS = text(
    f"SELECT {USER_COLUMNS} FROM users u WHERE key = ANY({array_parameter('user_keys', 'text')})"
)

_BY_ID_OR_KEY = text(f"SELECT {USER_COLUMNS} FROM users u WHERE id = :user_id OR key = :user_key")

_ID_BY_KEY_AT = text("""
SELECT user_id FROM (
    SELECT id AS user_id, created_at, CAST('infinity' AS timestamptz) AS deleted_at, insert_seq
    FROM users WHERE key = :user_key
    UNION ALL
    SELECT user_id, created_at, deleted_at, insert_seq FROM user_lifetimes WHERE key = :user_key
) AS lifetime
WHERE created_at <= coalesce(CAST(:at AS timestamptz), 'infinity')
-- A user who was stored at the time comes before one who was deleted by then. The key may have been
-- set long after the user was stored. If PostgreSQL's clock was set back, the user who was stored
-- last counts.
ORDER BY deleted_at > coalesce(CAST(:at AS timestamptz), now()) DESC, insert_seq DESC LIMIT 1
""")

_PAGE = text(f"""
SELECT {USER_COLUMNS} FROM users u WHERE id > :after ORDER BY id LIMIT :rows
""")

_LOCK_KEY = text(f"SELECT pg_advisory_xact_lock({USER_KEY_LOCK})")

_LOCK_BY_ID_OR_KEY = text(f"""
SELECT {USER_COLUMNS} FROM users u WHERE id = :user_id OR key = :user_key
ORDER BY id FOR NO KEY UPDATE
""")

_SET_KEY = text(f"""
UPDATE users u SET key = :user_key WHERE id = :user_id RETURNING {USER_COLUMNS}
""")

_LOCK_TO_DELETE_BY_ID = text("SELECT id FROM users WHERE id = :user_id FOR UPDATE")

_LOCK_TO_DELETE_BY_KEY = text("SELECT id FROM users WHERE key = :user_key FOR UPDATE")

_DELETE = text(f"""
WITH {DELETION_OF_USER},
ended AS (DELETE FROM memberships m USING change WHERE m.user_id = :user_id),
admitted AS (DELETE FROM exclusions WHERE user_id = :user_id),
kept AS (
    INSERT INTO deleted_users (id, deleted_at) SELECT :user_id, at FROM change
    ON CONFLICT (id) DO UPDATE SET deleted_at = excluded.deleted_at
)
DELETE FROM users WHERE id = :user_id
""")

_DELETED_BY_ID = text("SELECT id FROM deleted_users WHERE id = :user_id")

_DELETED_BY_KEY = text("""
SELECT user_id FROM user_lifetimes WHERE key = :user_key ORDER BY deleted_at DESC LIMIT 1
""")

# The same person may have been stored under several ids with one key.
_ERASE_KEYS = text("""
UPDATE user_lifetimes SET key = NULL WHERE key IN (
    SELECT key FROM user_lifetimes WHERE user_id = :user_id AND key IS NOT NULL
)
RETURNING user_id, old.key
""")


def user_record(row: Row[Any]) -> UserRecord:
    """Build the record from a row with `USER_COLUMNS`."""
    return UserRecord(row.user_id, row.user_created_at, row.user_key)


async def create_user(
    session: WriteSession,
    user_id: int | None,
    *,
    user_key: str | None = None,
    actor: Actor,
) -> UserRecord:
    """Store a user.

    Args:
        session: The session.
        user_id: The user's id. If it is None, a user with a key gets an id from a sequence, and a
            user without a key gets the lowest id above the last allocated one that was never
            stored.
        user_key: The user's key, if any.
        actor: The author of the change.

    Raises:
        MutationRejected: the id or the key is already stored, or no id is left to allocate.
    """
    if user_id is None and user_key is None:
        return await create_user_with_next_id(session, actor=actor)
    named = {"user_id": user_id, "user_key": user_key}
    values = {**named, "actor": actor.name, "api_key_id": actor.api_key_id}
    for _ in range(MAX_CONFLICT_RETRIES):
        stored = (await session.execute(_STORE, values)).one_or_none()
        if stored:
            return user_record(stored)
        existing = [user_record(row) for row in await session.execute(_BY_ID_OR_KEY, named)]
        reasons = [
            UserAlreadyExists((field,), user=user)
            for user in existing
            for field, value, stored_value in (
                ("id", user_id, user.user_id),
                ("key", user_key, user.key),
            )
            if value is not None and value == stored_value
        ]
        if reasons:
            raise MutationRejected(*reasons)
    raise AssertionError("other clients stored and deleted the user at every attempt")


async def set_user_key(session: WriteSession, user_id: int, user_key: str) -> UserRecord:
    """Set the key of a stored user that has none. If the user has this key, nothing changes.

    Raises:
        MutationRejected: the user is not stored or has another key, or another user has the key.
    """
    named = {"user_id": user_id, "user_key": user_key}
    await session.execute(_LOCK_KEY, {"user_key": user_key})
    locked = [user_record(row) for row in await session.execute(_LOCK_BY_ID_OR_KEY, named)]
    user = next((user for user in locked if user.user_id == user_id), None)
    if user is None:
        raise MutationRejected(UserNotFound(("id",), user_id))
    if user.key == user_key:
        return user
    if user.key is not None:
        raise MutationRejected(
            InvalidInput(
                ("key",),
                f"user {user_id} already has another key, and a key is never changed",
                "the key that the user has, or if the user has none, a key that no other user has",
            )
        )
    owner = next((other for other in locked if other.key == user_key), None)
    if owner:
        raise MutationRejected(UserAlreadyExists(("key",), user=owner))
    return user_record((await session.execute(_SET_KEY, named)).one())


async def delete_user(
    session: WriteSession,
    user_id: int | None = None,
    *,
    user_key: str | None = None,
    erase_key: bool = False,
    actor: Actor,
) -> UserDeletion:
    """Delete a user. The memberships end, the exclusions are deleted and the history stays.

    Args:
        session: The session.
        user_id: The user's id. Set either `user_id` or `user_key`.
        user_key: The user's key.
        erase_key: Whether every key that a user with this id ever had is also erased from the
            history, including that of other deleted users that had it. The user may have been
            deleted earlier.
        actor: The author of the change.

    Raises:
        MutationRejected: the user is not stored. With `erase_key`: the user was never stored, or
            no user has or had the key.
    """
    found_id = await _lock_to_delete(session, user_id, user_key)
    if found_id is not None:
        await session.execute(
            _DELETE,
            {
                "user_id": found_id,
                "actor": actor.name,
                "api_key_id": actor.api_key_id,
            },
        )
    elif erase_key:
        found_id = await _deleted_user_id(session, user_id, user_key)
    if found_id is None:
        field = "key" if user_id is None else "id"
        raise MutationRejected(UserNotFound((field,), user_id))
    if not erase_key:
        return UserDeletion(found_id)
    erased = (await session.execute(_ERASE_KEYS, {"user_id": found_id})).all()
    return UserDeletion(
        found_id, sorted({row.user_id for row in erased}), sorted({row.key for row in erased})
    )


async def _lock_to_delete(
    session: WriteSession, user_id: int | None, user_key: str | None
) -> int | None:
    """Lock the stored user with the id or the key, and return its id; None if there is none."""
    if user_id is not None:
        locked = await session.execute(_LOCK_TO_DELETE_BY_ID, {"user_id": user_id})
    else:
        locked = await session.execute(_LOCK_TO_DELETE_BY_KEY, {"user_key": user_key})
    return locked.scalar_one_or_none()


async def _deleted_user_id(
    session: WriteSession, user_id: int | None, user_key: str | None
) -> int | None:
    """Return the id of the user that was deleted last with the id or the key."""
    if user_id is not None:
        found = await session.execute(_DELETED_BY_ID, {"user_id": user_id})
    else:
        found = await session.execute(_DELETED_BY_KEY, {"user_key": user_key})
    return found.scalar_one_or_none()


async def users_by_id(session: ReadSession, user_ids: Sequence[int]) -> dict[int, UserRecord]:
    """Return the users that are stored."""
    rows = await session.fetch(_BY_IDS, {"user_ids": list(user_ids)})
    return {user_id: UserRecord(user_id, created_at, key) for user_id, created_at, key in rows}


async def users_by_key(session: ReadSession, user_keys: Sequence[str]) -> dict[str, UserRecord]:
    """Return the users with these keys that are stored."""
    rows = await session.fetch(_BY_KEYS, {"user_keys": list(user_keys)})
    return {key: UserRecord(user_id, created_at, key) for user_id, created_at, key in rows}


async def user_id_by_key_at(session: ReadSession, user_key: str, at: datetime | None) -> int | None:
    """Return the id of the user who had a key at a time, or last before it, deleted or not.

    Args:
        session: The session.
        user_key: The key.
        at: The time; None for now.

    Returns:
        The id; None if no user had the key, or if it was erased.
    """
    found = await session.execute(_ID_BY_KEY_AT, {"user_key": user_key, "at": at})
    user_id: int | None = found.scalar_one_or_none()
    return user_id


async def user_page(session: ReadSession, *, after: int, rows: int) -> list[UserRecord]:
    """Return up to `rows` users with ids above `after`, by id."""
    page = await session.execute(_PAGE, {"after": after, "rows": rows})
    return [user_record(row) for row in page]
