"""The locks of a transaction that changes many users' memberships in one segment.

The transaction calls `lock_segment_for_members`, then `lock_users`, then the functions of
`bulk_changes.py`. It holds its locks until it commits, so it should change at most some thousand
users.

A transaction locks in this order: segments by id, the keys that it stores, new users by id, new
users by key, stored users by id. A transaction cannot wait for another's new users while it has
locked stored ones, which others may need. If it may store a user, it also locks the segments whose
rollouts enroll new users, because the trigger on `users` needs these locks (see `service.py`).
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text

from segmentql.adapters.sessions import WriteSession
from segmentql.principal import NO_ACTOR, Actor
from segmentql.segments.records import SegmentRecord
from segmentql.segments.rows import SEGMENT_COLUMNS, segment_record
from segmentql.segments.service import SEGMENT_LOCK
from segmentql.users.service import (
    MAX_CONFLICT_RETRIES,
    USER_KEY_LOCK_CLASS,
    user_key_lock_number,
)

# `segmentql.by_hand`: the trigger on `users` does not enroll new users in this segment.
#
# `enable_seqscan`: PostgreSQL caches the plans of the next statements. If a table is empty when one
# is planned, the plan would scan the table, compare each row with each of thousands of ids, and
# stay in use while the table grows, until the next ANALYZE.
_LOCK_SEGMENTS: Final = f"""
WITH target AS MATERIALIZED (
    SELECT id FROM segments s WHERE {{condition}} AND deleted_at IS NULL
), enrolling AS MATERIALIZED (
    SELECT segment_id FROM rollouts_enrolling(clock_timestamp()), target WHERE segment_id <> id
), stores AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM enrolling) AND (
        EXISTS (
            SELECT FROM unnest(CAST(:user_ids AS bigint[])) AS requested (user_id)
            WHERE NOT EXISTS (SELECT FROM users u WHERE u.id = requested.user_id)
        ) OR EXISTS (
            SELECT FROM unnest(CAST(:user_keys AS text[])) AS requested (user_key)
            WHERE NOT EXISTS (SELECT FROM users u WHERE u.key = requested.user_key)
        )
    ) AS new_users
), needed AS MATERIALIZED (
    SELECT id FROM target
    UNION SELECT segment_id FROM enrolling, stores WHERE new_users
    ORDER BY id
), queued AS MATERIALIZED (
    SELECT id, pg_advisory_xact_lock_shared({SEGMENT_LOCK}) FROM needed
), locked AS MATERIALIZED (
    SELECT s.* FROM segments s JOIN queued USING (id) WHERE s.deleted_at IS NULL
    ORDER BY s.id FOR KEY SHARE OF s
)
SELECT {SEGMENT_COLUMNS},
    set_config('segmentql.by_hand', '{{{{' || s.id || '}}}}', true),
    set_config('enable_seqscan', 'off', true)
FROM locked s JOIN target USING (id)
"""
_LOCK_SEGMENT_BY_ID = text(_LOCK_SEGMENTS.format(condition="s.id = :segment"))
_LOCK_SEGMENT_BY_SLUG = text(_LOCK_SEGMENTS.format(condition="s.slug = :segment"))

# EXCEPT, because the planner never runs it as a nested loop. It cannot estimate the lengths of the
# arrays.
_STORE_USERS = text(f"""
WITH found AS MATERIALIZED (
    SELECT key FROM users WHERE key = ANY(CAST(:store_keys AS text[]))
), unknown_keys AS MATERIALIZED (
    SELECT unnest(CAST(:store_keys AS text[])) COLLATE "C" AS key EXCEPT SELECT key FROM found
), key_locks AS MATERIALIZED (
    SELECT pg_advisory_xact_lock_shared({USER_KEY_LOCK_CLASS}, number) FROM (
        SELECT DISTINCT {user_key_lock_number("key")} AS number FROM unknown_keys ORDER BY number
    ) AS numbers
), inserted AS (
    INSERT INTO users (id, created_at, created_by, created_by_api_key_id)
    SELECT id, clock_timestamp(), CAST(:actor AS text), CAST(:api_key_id AS text)
    FROM (
        SELECT unnest(CAST(:store_ids AS bigint[])) AS id
        EXCEPT SELECT id FROM users WHERE id = ANY(CAST(:store_ids AS bigint[]))
        ORDER BY id
    ) AS unknown
    WHERE (SELECT count(*) FROM key_locks) >= 0  -- These locks are first.
    ON CONFLICT DO NOTHING
    RETURNING id
), inserted_with_key AS (
    INSERT INTO users (id, key, created_at, created_by, created_by_api_key_id)
    SELECT next_id_for_key(), key, clock_timestamp(), CAST(:actor AS text),
        CAST(:api_key_id AS text)
    FROM (SELECT key FROM unknown_keys ORDER BY key) AS unknown
    WHERE (SELECT count(*) FROM inserted) >= 0  -- The users without a key are first.
    ON CONFLICT DO NOTHING
    RETURNING id
)
SELECT id FROM inserted_with_key
""")

# It sees the new users, and those that other transactions stored while `_STORE_USERS` waited.
_LOCK_USERS = text("""
WITH existing AS MATERIALIZED (
    SELECT u.id, u.key FROM users u
    WHERE u.id = ANY(ARRAY(
        SELECT unnest(CAST(:user_ids AS bigint[]))
        UNION SELECT id FROM users WHERE key = ANY(CAST(:user_keys AS text[]))
    ))
    ORDER BY u.id FOR NO KEY UPDATE
)
SELECT ARRAY(SELECT id FROM existing) AS user_ids,
    ARRAY(SELECT id FROM existing WHERE key IS NOT NULL) AS ids_by_key,
    ARRAY(SELECT key FROM existing WHERE key IS NOT NULL) AS user_keys,
    clock_timestamp() AS locked_at
""")


@dataclass(frozen=True, slots=True)
class LockedUsers:
    """The users that `lock_users` has locked. All users to store are stored."""

    found_ids: Set[int]
    """Those of `find_ids` that were stored before."""
    ids_by_key: Mapping[str, int]
    """The ids by key of all locked users with a key, including those that were named by id."""
    locked_at: datetime
    """The database's clock after the locks."""


async def lock_segment_for_members(
    session: WriteSession,
    segment: int | str,
    *,
    store_ids: Sequence[int] = (),
    store_keys: Sequence[str] = (),
) -> SegmentRecord | None:
    """Lock a segment, so that it is not deleted while this transaction changes its members.

    Args:
        session: The session.
        segment: The segment's id, which is an integer, or its slug.
        store_ids: The ids of the users that this transaction will store if they are not stored.
        store_keys: The keys of the users that this transaction will store if they are not stored.

    Returns:
        The segment; None if it does not exist or is deleted.
    """
    statement = _LOCK_SEGMENT_BY_ID if isinstance(segment, int) else _LOCK_SEGMENT_BY_SLUG
    values = {"segment": segment, "user_ids": list(store_ids), "user_keys": list(store_keys)}
    row = (await session.execute(statement, values)).one_or_none()
    return segment_record(row) if row else None


async def lock_users(
    session: WriteSession,
    *,
    store_ids: Sequence[int] = (),
    find_ids: Sequence[int] = (),
    store_keys: Sequence[str] = (),
    find_keys: Sequence[str] = (),
    actor: Actor = NO_ACTOR,
) -> LockedUsers:
    """Store new users and lock all users in the order of their ids, in two round trips.

    The lists may have repeats. If other clients delete users at the same time, it takes more round
    trips. Rollouts that enroll new users add the new users, except the rollout of the segment that
    `lock_segment_for_members` has locked.

    Args:
        session: The session.
        store_ids: Ids of users to lock, and to store if they are not stored.
        find_ids: Ids of users to lock if they are stored.
        store_keys: Keys of users to lock. A new user gets an id from a sequence.
        find_keys: Keys of users to lock if they are stored.
        actor: The author of the change.

    Returns:
        The locked users. Users of `find_ids` and `find_keys` that are not stored are absent.

    Raises:
        AssertionError: Other clients deleted users to store in each of `MAX_CONFLICT_RETRIES`
            attempts.
    """
    author = {"actor": actor.name, "api_key_id": actor.api_key_id}
    to_store = {"store_ids": list(store_ids), "store_keys": list(store_keys), **author}
    named = {"user_ids": [*store_ids, *find_ids], "user_keys": [*store_keys, *find_keys]}
    new_ids: set[int] = set()
    for _ in range(MAX_CONFLICT_RETRIES):
        if store_ids or store_keys:
            new_ids.update((await session.execute(_STORE_USERS, to_store)).scalars())
        row = (await session.execute(_LOCK_USERS, named)).one()
        locked_ids = set(row.user_ids)
        ids_by_key = dict(zip(row.user_keys, row.ids_by_key, strict=True))
        if locked_ids.issuperset(store_ids) and ids_by_key.keys() >= set(store_keys):
            found_ids = locked_ids.intersection(find_ids) - new_ids
            return LockedUsers(found_ids, ids_by_key, row.locked_at)
    raise AssertionError("other clients stored and deleted a user at every attempt")
