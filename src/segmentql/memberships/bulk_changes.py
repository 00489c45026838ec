"""Changes of many users' memberships in one segment, with one statement each.

The segment and the users are locked before, by the functions of `bulk_locks.py`.
"""

from collections.abc import Sequence

from sqlalchemy import text

from segmentql.adapters.sessions import WriteSession
from segmentql.memberships.adding import ON_EXISTING_MEMBERSHIP
from segmentql.memberships.due_ends import change_in_order
from segmentql.memberships.expiry import check_expiry, schedule_expiry
from segmentql.memberships.reads import ACTIVE_AT_CHANGE
from segmentql.memberships.records import NO_EXPIRY, Expiry, OnExcluded, OnExisting
from segmentql.principal import NO_ACTOR, Actor
from segmentql.tables import RowOutcome
from segmentql.timestamps import CHANGE_OF_USERS

_ADD_MEMBERS = text(f"""
WITH {CHANGE_OF_USERS},
excluded_users AS MATERIALIZED (
    SELECT user_id FROM exclusions
    WHERE segment_id = :segment_id AND user_id = ANY(CAST(:user_ids AS bigint[]))
      AND CAST(:on_excluded AS text) = 'SKIP'
), admitted AS (
    DELETE FROM exclusions USING change
    WHERE segment_id = :segment_id AND user_id = ANY(CAST(:user_ids AS bigint[]))
      AND CAST(:on_excluded AS text) = 'ADMIT'
), changed AS (
    INSERT INTO memberships AS m (user_id, segment_id, joined_at, updated_at, expires_at, cause,
        actor, api_key_id, import_id)
    SELECT user_id, :segment_id, change.at, change.at,
        coalesce(CAST(:expires_at AS timestamptz), change.at + CAST(:ttl AS interval)),
        'MANUAL', CAST(:actor AS text), CAST(:api_key_id AS text), CAST(:import_id AS bigint)
    FROM change, (
        SELECT unnest(CAST(:user_ids AS bigint[])) AS user_id
        EXCEPT SELECT user_id FROM excluded_users
        ORDER BY user_id
    ) AS requested
    WHERE CAST(:expires_at AS timestamptz) IS NULL OR :expires_at > change.at
    {ON_EXISTING_MEMBERSHIP}
    RETURNING m.user_id, old.id IS DISTINCT FROM new.id AS joined,
        old.expires_at IS DISTINCT FROM new.expires_at AS end_changed, new.expires_at
)
SELECT change.at,
    ARRAY(SELECT user_id FROM changed WHERE joined) AS joined,
    ARRAY(SELECT user_id FROM changed WHERE NOT joined AND end_changed) AS end_changed,
    ARRAY(SELECT user_id FROM excluded_users) AS excluded,
    (SELECT extract(epoch FROM min(expires_at) - change.at) FROM changed) AS next_end
FROM change
""")

_REMOVE_MEMBERS = text(f"""
WITH {CHANGE_OF_USERS},
removed AS (
    DELETE FROM memberships m USING change
    WHERE m.segment_id = :segment_id AND m.user_id = ANY(CAST(:user_ids AS bigint[]))
    RETURNING m.user_id, {ACTIVE_AT_CHANGE} AS was_active
), excluded_now AS (
    INSERT INTO exclusions (user_id, segment_id, excluded_at, actor, api_key_id, import_id)
    SELECT user_id, :segment_id, change.at, CAST(:actor AS text), CAST(:api_key_id AS text),
        CAST(:import_id AS bigint)
    FROM change, unnest(CAST(:user_ids AS bigint[])) AS user_id
    WHERE CAST(:exclude AS boolean)
    ORDER BY user_id
    ON CONFLICT DO NOTHING
)
SELECT ARRAY(SELECT user_id FROM removed WHERE was_active) AS removed FROM change
""")


async def add_members(
    session: WriteSession,
    *,
    segment_id: int,
    user_ids: Sequence[int],
    expiry: Expiry = NO_EXPIRY,
    on_existing: OnExisting = OnExisting.EXTEND,
    on_excluded: OnExcluded = OnExcluded.ADMIT,
    actor: Actor = NO_ACTOR,
    import_id: int | None = None,
) -> dict[RowOutcome, Sequence[int]]:
    """Add users to a segment, in one round trip.

    Args:
        session: The session.
        segment_id: The segment, which is locked.
        user_ids: The ids of the users, without repeats. The users are stored and locked.
        expiry: The end of the memberships.
        on_existing: The effect of adding an active member.
        on_excluded: The effect of adding an excluded user. ADMIT ends the exclusion, and SKIP
            leaves the user as it is.
        actor: The author of the change.
        import_id: The import that makes the change, if any.

    Returns:
        The ids of the users by outcome: JOINED, END_CHANGED, ALREADY_IN and EXCLUDED.

    Raises:
        MutationRejected: `expiry.expires_at` has passed.
    """
    values = {
        **_parameters(segment_id, user_ids, actor, import_id),
        "ttl": expiry.ttl,
        "expires_at": expiry.expires_at,
        "on_existing": on_existing,
        "on_excluded": on_excluded,
    }
    row = await change_in_order(session, _ADD_MEMBERS, values, user_ids)
    if expiry.expires_at is not None and expiry.expires_at <= row.at:
        check_expiry(expiry.expires_at - row.at)
    schedule_expiry(session, row.next_end)
    others = set(user_ids).difference(row.joined, row.end_changed, row.excluded)
    return {
        RowOutcome.JOINED: row.joined,
        RowOutcome.END_CHANGED: row.end_changed,
        RowOutcome.ALREADY_IN: list(others),
        RowOutcome.EXCLUDED: row.excluded,
    }


async def remove_members(
    session: WriteSession,
    *,
    segment_id: int,
    user_ids: Sequence[int],
    exclude: bool = True,
    actor: Actor = NO_ACTOR,
    import_id: int | None = None,
) -> dict[RowOutcome, Sequence[int]]:
    """Remove users from a segment, in one round trip.

    Args:
        session: The session.
        segment_id: The segment, which is locked.
        user_ids: The ids of the users, without repeats. The users are stored and locked.
        exclude: Whether the segment's rollout excludes the users from now on, including those who
            are not members.
        actor: The author of the change.
        import_id: The import that makes the change, if any.

    Returns:
        The ids of the users by outcome: LEFT and NOT_IN.
    """
    values = {**_parameters(segment_id, user_ids, actor, import_id), "exclude": exclude}
    removed = (await change_in_order(session, _REMOVE_MEMBERS, values, user_ids)).removed
    return {
        RowOutcome.LEFT: removed,
        RowOutcome.NOT_IN: list(set(user_ids).difference(removed)),
    }


def _parameters(
    segment_id: int, user_ids: Sequence[int], actor: Actor, import_id: int | None
) -> dict[str, object]:
    return {
        "segment_id": segment_id,
        "user_ids": list(user_ids),
        "actor": actor.name,
        "api_key_id": actor.api_key_id,
        "import_id": import_id,
    }
