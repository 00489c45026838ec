"""Rules and SQL of the manual changes of one user's memberships."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import TextClause, text

from segmentql.adapters.sessions import WriteSession
from segmentql.errors import MutationRejected, SegmentNotFound
from segmentql.memberships.adding import ON_EXISTING_MEMBERSHIP
from segmentql.memberships.expiry import check_expiry, schedule_expiry
from segmentql.memberships.ordered_changes import change_in_order
from segmentql.memberships.reads import ACTIVE_AT_CHANGE
from segmentql.memberships.records import OnExisting, UserSegmentsUpdate
from segmentql.principal import Actor
from segmentql.segments.service import SEGMENT_LOCK
from segmentql.timestamps import CHANGE_OF_USER
from segmentql.users.service import (
    MAX_CONFLICT_RETRIES,
    USER_COLUMNS,
    USER_KEY_LOCK,
    user_record,
)


# A transaction locks segments by id, then the keys of users, then users by id. The segments' locks
# allow other transactions to add members, but not to delete the segment. The user's lock serializes
# all changes of one user.
#
# If the user is new, the trigger on `users` leaves the segments in `segmentql.by_hand` to this
# transaction and enrolls the user in the other rollouts. It locks their segments after the user, so
# the order has an exception. Two transactions that store the same user and the deletion of a
# segment that enrolls users can therefore form a deadlock. PostgreSQL cancels one of them after a
# second, and `Database.transaction` retries it. To lock those segments first, every change of a
# stored user would have to read the rollouts.
def _lock_and_store_user(stored_user: str) -> TextClause:
    """Return the statement that locks the segments, and that locks or stores the user.

    Args:
        stored_user: CTEs of which the last one, `stored_user`, has the user's id as `user_id` if
            the user was locked or stored. They read `ready`, which has one row if every slug is
            known.
    """
    return text(f"""
WITH named AS MATERIALIZED (
    SELECT id FROM segments WHERE slug = ANY(:slugs) AND deleted_at IS NULL ORDER BY id
), queued AS MATERIALIZED (
    SELECT id, pg_advisory_xact_lock_shared({SEGMENT_LOCK}) FROM named
), found AS MATERIALIZED (
    SELECT s.id, s.slug FROM segments s JOIN queued USING (id)
    WHERE s.deleted_at IS NULL
    ORDER BY s.id FOR KEY SHARE OF s
), ready AS MATERIALIZED (
    SELECT FROM (
        SELECT count(*) AS total,
            set_config('segmentql.by_hand', CAST(coalesce(array_agg(id), '{{}}') AS text), true)
        FROM found
    ) AS named_segments
    WHERE total = :slug_count
), {stored_user}, done AS (
    SELECT max(user_id) AS user_id FROM stored_user
)
SELECT found.id, found.slug, done.user_id, clock_timestamp() AS locked_at
FROM done LEFT JOIN found ON true
""")


# ON CONFLICT ... WHERE false changes nothing and locks the existing row.
_LOCK_AND_STORE_USER_BY_ID = _lock_and_store_user("""
inserted AS (
    INSERT INTO users (id, created_at, created_by, created_by_api_key_id)
    SELECT :user_id, clock_timestamp(), CAST(:actor AS text), CAST(:api_key_id AS text) FROM ready
    ON CONFLICT (id) DO UPDATE SET created_at = users.created_at WHERE false
    RETURNING id
), stored_user AS (
    SELECT CAST(:user_id AS bigint) AS user_id FROM (SELECT count(*) FROM inserted) AS inserted
)
""")

# The joins with `ready` and `key_lock` keep the order of the locks.
_LOCK_AND_STORE_USER_BY_KEY = _lock_and_store_user(f"""
key_lock AS MATERIALIZED (
    SELECT pg_advisory_xact_lock_shared({USER_KEY_LOCK}) FROM ready
), existing AS MATERIALIZED (
    SELECT u.id FROM key_lock CROSS JOIN users u WHERE u.key = :user_key
    FOR NO KEY UPDATE OF u
), inserted AS (
    INSERT INTO users (id, key, created_at, created_by, created_by_api_key_id)
    SELECT next_id_for_key(), CAST(:user_key AS text), clock_timestamp(), CAST(:actor AS text),
        CAST(:api_key_id AS text)
    FROM key_lock LEFT JOIN existing ON true WHERE existing.id IS NULL
    ON CONFLICT DO NOTHING
    RETURNING id
), stored_user AS (
    SELECT id AS user_id FROM existing UNION ALL SELECT id FROM inserted
)
""")

_UPDATE_MEMBERSHIPS = text(f"""
WITH {CHANGE_OF_USER},
removed AS (
    DELETE FROM memberships m USING change
    WHERE m.user_id = :user_id AND m.segment_id = ANY(:remove_ids)
    RETURNING {ACTIVE_AT_CHANGE} AS was_active
), excluded_now AS (
    INSERT INTO exclusions (user_id, segment_id, excluded_at, actor, api_key_id)
    SELECT :user_id, segment_id, change.at, CAST(:actor AS text), CAST(:api_key_id AS text)
    FROM change, unnest(CAST(:remove_ids AS bigint[])) AS segment_id
    ON CONFLICT DO NOTHING
), admitted AS (
    DELETE FROM exclusions USING change
    WHERE user_id = :user_id AND segment_id = ANY(:add_ids)
), added AS (
    INSERT INTO memberships AS m
        (user_id, segment_id, joined_at, updated_at, expires_at, cause, actor, api_key_id)
    SELECT :user_id, segment_id, change.at, change.at,
        coalesce(CAST(:expires_at AS timestamptz), change.at + CAST(:ttl AS interval)),
        'MANUAL', CAST(:actor AS text), CAST(:api_key_id AS text)
    FROM change, unnest(CAST(:add_ids AS bigint[])) AS segment_id
    WHERE CAST(:expires_at AS timestamptz) IS NULL OR :expires_at > change.at
    {ON_EXISTING_MEMBERSHIP}
    RETURNING old.id IS DISTINCT FROM new.id AS joined,
        old.expires_at IS DISTINCT FROM new.expires_at AS end_moved, new.expires_at
)
-- PostgreSQL runs the subqueries in this order, so leaves get lower positions than joins.
SELECT {USER_COLUMNS}, change.at,
    (SELECT count(*) FROM removed WHERE was_active) AS removed,
    (SELECT count(*) FROM added WHERE joined) AS added,
    (SELECT count(*) FROM added WHERE NOT joined AND end_moved) AS extended,
    (SELECT extract(epoch FROM min(added.expires_at) - change.at) FROM added) AS next_end
FROM change, users u WHERE u.id = :user_id
""")


async def update_user_segments(
    session: WriteSession,
    *,
    user_id: int | None = None,
    user_key: str | None = None,
    add: Sequence[str],
    remove: Sequence[str],
    ttl: timedelta | None = None,
    expires_at: datetime | None = None,
    on_existing: OnExisting = OnExisting.EXTEND,
    actor: Actor,
) -> UserSegmentsUpdate:
    """Add a user to segments and remove the user from others, all or nothing, in two round trips.

    If the user is not stored, this stores the user. If other clients store the same new key at the
    same time, it takes one more round trip. If history lacks an expired membership of the user, it
    takes two more. Removing a user also excludes the user from the segment's rollout; adding the
    user again ends the exclusion.

    Args:
        session: The session.
        user_id: The user's id. Set either `user_id` or `user_key`.
        user_key: The user's key. A new user gets an id from a sequence.
        add: Slugs of segments; no slug occurs twice in `add` and `remove` together.
        remove: Slugs of segments.
        ttl: The time until the memberships of `add` end. Set at most one of `ttl` and `expires_at`.
        expires_at: When the memberships of `add` end.
        on_existing: The effect of adding a user who is already an active member.
        actor: The author of the change.

    Raises:
        MutationRejected: a segment does not exist, or the end is out of range.
    """
    slugs = [*add, *remove]
    named = {"user_key": user_key} if user_id is None else {"user_id": user_id}
    lock_and_store = _LOCK_AND_STORE_USER_BY_KEY if user_id is None else _LOCK_AND_STORE_USER_BY_ID
    author = {"actor": actor.name, "api_key_id": actor.api_key_id}
    for _ in range(MAX_CONFLICT_RETRIES):
        locked = (
            await session.execute(
                lock_and_store, {"slugs": slugs, "slug_count": len(slugs), **named, **author}
            )
        ).all()
        segment_ids: dict[str, int] = {row.slug: row.id for row in locked}
        _check_slugs_exist(add, remove, segment_ids.keys())
        stored_id = locked[0].user_id
        if stored_id is not None:
            break
    else:
        raise AssertionError("other clients stored and deleted the user at every attempt")
    if expires_at is not None:
        check_expiry(expires_at - locked[0].locked_at)
    values = {
        "user_id": stored_id,
        **author,
        # Sorted, because rows are locked in the order of ids.
        "add_ids": sorted(segment_ids[slug] for slug in add),
        "remove_ids": sorted(segment_ids[slug] for slug in remove),
        "ttl": ttl,
        "expires_at": expires_at,
        "on_existing": on_existing,
    }
    written = await change_in_order(session, _UPDATE_MEMBERSHIPS, values, [stored_id])
    if expires_at is not None and expires_at <= written.at:
        check_expiry(expires_at - written.at)  # The end passed between the two statements.
    schedule_expiry(session, written.next_end)
    return UserSegmentsUpdate(
        user_record(written), written.added, written.removed, written.extended
    )


def _check_slugs_exist(
    add: Sequence[str], remove: Sequence[str], known_slugs: Collection[str]
) -> None:
    unknown = [
        (slug, (field, str(position)))
        for field, slugs in (("add", add), ("remove", remove))
        for position, slug in enumerate(slugs)
        if slug not in known_slugs
    ]
    if unknown:
        _, first_path = unknown[0]
        raise MutationRejected(SegmentNotFound(first_path, tuple(slug for slug, _ in unknown)))
