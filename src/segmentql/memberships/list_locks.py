"""The locks of a transaction that changes many users' memberships in one segment.

The transaction calls `lock_segment_for_members`, then `lock_users`, then the functions of
`list_changes.py`. It holds its locks until it commits, so it should change at most some thousand
users.

A transaction locks in this order: segments by id, the keys that it stores, stored users by id, new
users by id, new users by key. If it may store a user, it also locks the segments whose rollouts
enroll new users, because the trigger on `users` needs these locks (see `service.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text

from segmentql.adapters.database import WriteSession
from segmentql.principal import ANONYMOUS, Actor
from segmentql.segments.records import SegmentRecord
from segmentql.segments.service import SEGMENT_COLUMNS, SEGMENT_LOCK, segment_record
from segmentql.users.service import (
    MAX_CONFLICT_RETRIES,
    USER_KEY_LOCK_CLASS,
    user_key_lock_number,
)

# `segmentql.by_hand`: the trigger on `users` does not enroll new users in this segment.
#
# `enable_seqscan`: PostgreSQL caches the plans of the next statements. If a table was empty when one
# was planned, the plan would scan the table, compare each row with each of thousands of ids, and
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

# EXCEPT and INTERSECT, because the planner never runs them as nested loops. It cannot estimate the
# lengths of the arrays.
_LOCK_USERS = text(f"""
WITH found AS MATERIALIZED (
    SELECT u.id, u.key FROM users u WHERE u.key = ANY(CAST(:user_keys AS text[]))
), key_locks AS MATERIALIZED (
    SELECT pg_advisory_xact_lock_shared({USER_KEY_LOCK_CLASS}, number) FROM (
        SELECT DISTINCT {user_key_lock_number("key")} AS number FROM (
            SELECT unnest(CAST(:store_keys AS text[])) AS key EXCEPT SELECT key FROM found
        ) AS unknown
        ORDER BY number
    ) AS numbers
), existing AS MATERIALIZED (
    SELECT u.id, u.key FROM users u
    WHERE u.id = ANY(ARRAY(
        SELECT unnest(CAST(:user_ids AS bigint[])) UNION SELECT id FROM found
    ))
      AND (SELECT count(*) FROM key_locks) >= 0  -- These locks are first.
    ORDER BY u.id FOR NO KEY UPDATE
), inserted AS (
    -- ON CONFLICT ... WHERE false changes nothing and locks the existing row.
    INSERT INTO users (id, created_at, created_by, created_by_api_key_id)
    SELECT id, clock_timestamp(), CAST(:actor AS text), CAST(:api_key_id AS text)
    FROM (
        SELECT unnest(CAST(:store_ids AS bigint[])) AS id EXCEPT SELECT id FROM existing
        ORDER BY id
    ) AS unknown
    ON CONFLICT (id) DO UPDATE SET created_at = users.created_at WHERE false
    RETURNING id
), inserted_with_key AS (
    INSERT INTO users (id, key, created_at, created_by, created_by_api_key_id)
    SELECT next_id_for_key(), key, clock_timestamp(), CAST(:actor AS text),
        CAST(:api_key_id AS text)
    FROM (
        SELECT unnest(CAST(:store_keys AS text[])) COLLATE "C" AS key
        EXCEPT SELECT key FROM existing
        ORDER BY key
    ) AS unknown
    WHERE (SELECT count(*) FROM inserted) >= 0  -- The users without a key are first.
    ON CONFLICT DO NOTHING
    RETURNING id, key
), by_key AS MATERIALIZED (
    SELECT id, key FROM found INTERSECT SELECT id, key FROM existing
    UNION ALL SELECT id, key FROM inserted_with_key
)
SELECT
    ARRAY(
        SELECT unnest(CAST(:find_ids AS bigint[])) INTERSECT SELECT id FROM existing
    ) AS found_ids,
    ARRAY(SELECT id FROM by_key ORDER BY id) AS ids_by_key,
    ARRAY(SELECT key FROM by_key ORDER BY id) AS user_keys,
    clock_timestamp() AS locked_at
""")


@dataclass(frozen=True, slots=True)
class LockedUsers:
    """The users that `lock_users` has locked. All users to store are stored."""

    found_ids: frozenset[int]
    """Those of `find_ids` that were stored before."""
    ids_by_key: Mapping[str, int]
    """The ids of the users with the keys of `store_keys`, and of `find_keys` if they are stored."""
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
    actor: Actor = ANONYMOUS,
) -> LockedUsers:
    """Lock users in the order of their ids, and store new users, in one round trip.

    The lists may have repeats. If other clients store or delete users with the same keys at the
    same time, it takes more round trips. Rollouts that enroll new users add the new users, except
    the rollout of the segment that `lock_segment_for_members` has locked.

    Args:
        session: The session.
        store_ids: Ids of users to lock, and to store if they are not stored.
        find_ids: Ids of users to lock if they are stored.
        store_keys: Keys of users to lock. A new user gets an id from a sequence.
        find_keys: Keys of users to lock if they are stored.
        actor: The author of the change.
    """
    values = {
        "user_ids": [*store_ids, *find_ids],
        "user_keys": [*store_keys, *find_keys],
        "store_ids": list(store_ids),
        "find_ids": list(find_ids),
        "store_keys": list(store_keys),
        "actor": actor.name,
        "api_key_id": actor.api_key_id,
    }
    for _ in range(MAX_CONFLICT_RETRIES):
        row = (await session.execute(_LOCK_USERS, values)).one()
        ids_by_key = dict(zip(row.user_keys, row.ids_by_key, strict=True))
        if ids_by_key.keys() >= set(store_keys):
            return LockedUsers(frozenset(row.found_ids), ids_by_key, row.locked_at)
    raise AssertionError("other clients stored and deleted a user at every attempt")
