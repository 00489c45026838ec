"""The chunks of a pass: the next users by id, and the memberships that they need.

A chunk commits its changes and the pass' cursor together, under the lock of the rollout's row
(`passes.py`).
"""

from typing import Final

from sqlalchemy import text

from segmentql.adapters.sessions import WriteSession
from segmentql.memberships.due_ends import change_in_order
from segmentql.memberships.reads import ACTIVE_AT_CHANGE
from segmentql.rollouts.records import RolloutRecord
from segmentql.timestamps import CHANGE_BY_ROLLOUT

CHUNK_USERS: Final = 20_000
"""Users in one chunk. If all of them join, the transaction takes a few tenths of a second."""

_NEXT_USERS = """
SELECT id, (rollout_hash_v1(:segment_id, id), id)
    <= (CAST(:bound_hash AS bigint), CAST(:bound_user_id AS bigint)) AS in_sample
FROM users WHERE id > :cursor_user_id AND insert_seq <= :last_insert_seq
ORDER BY id LIMIT :rows
"""

_NEXT_MEMBERS = """
SELECT user_id AS id, false AS in_sample
FROM memberships
WHERE segment_id = :segment_id AND user_id > :cursor_user_id AND cause = 'ROLLOUT'
ORDER BY user_id LIMIT :rows
"""

# The changes that the next users need: add, remove, or set another expiry. This locks those users,
# as every change of memberships does. The next statement sees what was committed before the lock.
_FIND_CHANGES = """
WITH scanned AS MATERIALIZED (
    {scan}
), summary AS MATERIALIZED (
    SELECT count(*) AS seen, max(id) AS last_id FROM scanned
), member AS MATERIALIZED (
    SELECT user_id AS id, cause, expires_at FROM memberships
    WHERE segment_id = :segment_id AND user_id > :cursor_user_id
      AND user_id <= (SELECT last_id FROM summary)
      AND (expires_at IS NULL OR expires_at > now())
), excluded AS MATERIALIZED (
    SELECT user_id AS id FROM exclusions
    WHERE segment_id = :segment_id AND user_id > :cursor_user_id
      AND user_id <= (SELECT last_id FROM summary)
), planned AS MATERIALIZED (
    -- FULL JOIN, here and below, because the planner never runs it as a nested loop. Its statistics
    -- may not include the newest members yet.
    SELECT id, CASE
        WHEN s.in_sample IS NULL THEN NULL  -- not scanned
        WHEN m.cause IS NULL THEN CASE WHEN s.in_sample AND e.id IS NULL THEN 'add' END
        WHEN m.cause <> 'ROLLOUT' THEN NULL
        WHEN NOT s.in_sample AND CAST(:removes_members AS boolean) THEN 'remove'
        WHEN m.expires_at IS DISTINCT FROM CAST(:expires_at AS timestamptz) THEN 'set_expiry'
        END AS change
    FROM scanned s FULL JOIN member m USING (id) FULL JOIN excluded e USING (id)
), locked AS MATERIALIZED (
    SELECT u.id FROM users u  -- An array, because the planner would scan all users for a join.
    WHERE u.id = ANY(ARRAY(SELECT id FROM planned WHERE change IS NOT NULL))
    ORDER BY u.id FOR NO KEY UPDATE
), confirmed AS MATERIALIZED (
    SELECT id, CASE WHEN locked.id IS NOT NULL THEN change END AS change
    FROM planned FULL JOIN locked USING (id)
)
SELECT seen, coalesce(last_id, 0) AS last_id,
    (SELECT array_agg(id) FILTER (WHERE change = 'add') FROM confirmed) AS to_add,
    (SELECT array_agg(id) FILTER (WHERE change = 'remove') FROM confirmed) AS to_remove,
    (SELECT array_agg(id) FILTER (WHERE change = 'set_expiry') FROM confirmed) AS to_set_expiry
FROM summary
"""

_FIND_CHANGES_OF_USERS = text(_FIND_CHANGES.format(scan=_NEXT_USERS))

_FIND_CHANGES_OF_MEMBERS = text(_FIND_CHANGES.format(scan=_NEXT_MEMBERS))

# Each change checks its conditions again. If the new expiry has already passed, the membership ends
# at this moment instead, because until now every read returned it as active.
_APPLY_CHANGES = text(f"""
WITH {CHANGE_BY_ROLLOUT},
removed AS (
    DELETE FROM memberships m USING change
    WHERE m.segment_id = :segment_id AND m.user_id = ANY(CAST(:to_remove AS bigint[]))
      AND m.cause = 'ROLLOUT'
), expiry_set AS (
    UPDATE memberships m
    SET updated_at = change.at, expires_at = CASE
        WHEN CAST(:expires_at AS timestamptz) < change.at THEN change.at
        ELSE CAST(:expires_at AS timestamptz) END
    FROM change
    WHERE m.segment_id = :segment_id AND m.user_id = ANY(CAST(:to_set_expiry AS bigint[]))
      AND m.cause = 'ROLLOUT' AND {ACTIVE_AT_CHANGE}
), added AS (
    INSERT INTO memberships
        (user_id, segment_id, joined_at, updated_at, expires_at, cause, actor, api_key_id)
    SELECT user_id, :segment_id, change.at, change.at, CAST(:expires_at AS timestamptz), 'ROLLOUT',
        CAST(:actor AS text), CAST(:api_key_id AS text)
    FROM change, unnest(CAST(:to_add AS bigint[])) AS requested (user_id)
    WHERE (CAST(:expires_at AS timestamptz) IS NULL OR :expires_at > change.at)
      AND NOT EXISTS (
        SELECT FROM exclusions e
        WHERE e.user_id = requested.user_id AND e.segment_id = :segment_id)
    ORDER BY user_id
    ON CONFLICT DO NOTHING
)
SELECT at FROM change
""")

_SAVE_PROGRESS = text("""
UPDATE rollouts SET
    cursor_user_id = :cursor_user_id, users_seen = least(users_seen + :seen, users_total),
    failures = 0, heartbeat_at = clock_timestamp()
WHERE segment_id = :segment_id
""")


async def process_chunk(session: WriteSession, rollout: RolloutRecord) -> bool:
    """Add, remove and change the members among the next users of a locked rollout's pass.

    Returns:
        Whether the pass has more users. If so, the cursor of the pass is stored.
    """
    parameters = {
        "segment_id": rollout.segment_id,
        "cursor_user_id": rollout.cursor_user_id,
        "removes_members": rollout.removes_members,
        "expires_at": rollout.expires_at,
        "rows": CHUNK_USERS,
    }
    if rollout.pass_percent:
        sample = {
            "last_insert_seq": rollout.last_insert_seq,
            "bound_hash": rollout.bound_hash,
            "bound_user_id": rollout.bound_user_id,
        }
        changes = (await session.execute(_FIND_CHANGES_OF_USERS, {**parameters, **sample})).one()
    else:  # The sample is empty, so that only members can need a change.
        changes = (await session.execute(_FIND_CHANGES_OF_MEMBERS, parameters)).one()
    to_add, to_remove = changes.to_add or [], changes.to_remove or []
    to_set_expiry = changes.to_set_expiry or []
    user_ids = [*to_add, *to_remove, *to_set_expiry]
    if user_ids:
        values = {
            "segment_id": rollout.segment_id,
            "user_ids": user_ids,
            "actor": rollout.actor,
            "api_key_id": rollout.api_key_id,
            "expires_at": rollout.expires_at,
            "to_add": to_add,
            "to_remove": to_remove,
            "to_set_expiry": to_set_expiry,
        }
        await change_in_order(session, _APPLY_CHANGES, values, user_ids)
    if changes.seen < CHUNK_USERS:
        return False
    await session.execute(
        _SAVE_PROGRESS,
        {
            "segment_id": rollout.segment_id,
            "cursor_user_id": changes.last_id,
            "seen": changes.seen,
        },
    )
    return True
