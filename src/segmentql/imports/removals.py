"""Removals of members that respect the finished sample of the segment's rollout.

A member by hand who is in the sample is not removed. The membership becomes one of the rollout.
The segment and the users are locked before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import TextClause, text

from segmentql.adapters.sessions import WriteSession
from segmentql.memberships.due_ends import change_in_order
from segmentql.memberships.reads import ACTIVE_AT_CHANGE
from segmentql.principal import Actor
from segmentql.rollouts.finished_sample import IN_FINISHED_SAMPLE, read_finished_sample
from segmentql.timestamps import CHANGE_OF_USERS


def _end_memberships(members: str) -> TextClause:
    """Return the statement that ends the memberships of the CTE `member`, or keeps them.

    Args:
        members: The SELECT of `user_id`, `cause` and `in_sample`, which reads `change`.
    """
    return text(f"""
WITH {CHANGE_OF_USERS},
member AS MATERIALIZED ({members}),
ended AS (
    DELETE FROM memberships m USING member
    WHERE m.segment_id = :segment_id AND m.user_id = member.user_id AND NOT member.in_sample
    RETURNING m.user_id
), kept AS (
    UPDATE memberships m SET
        cause = 'ROLLOUT', updated_at = change.at,
        expires_at = CASE WHEN CAST(:rollout_expires_at AS timestamptz) < change.at THEN change.at
            ELSE CAST(:rollout_expires_at AS timestamptz) END,
        actor = CAST(:rollout_actor AS text), api_key_id = CAST(:rollout_api_key_id AS text),
        import_id = NULL
    FROM member, change
    WHERE m.segment_id = :segment_id AND m.user_id = member.user_id AND member.in_sample
      AND member.cause = 'MANUAL'
)
SELECT ARRAY(SELECT user_id FROM ended) AS ended,
    ARRAY(SELECT user_id FROM member WHERE in_sample) AS in_sample
FROM change
""")


_END = _end_memberships(f"""
    SELECT m.user_id, m.cause, {IN_FINISHED_SAMPLE} AS in_sample
    FROM change, memberships m JOIN users u ON u.id = m.user_id
    WHERE m.segment_id = :segment_id AND m.user_id = ANY(CAST(:user_ids AS bigint[]))
      AND {ACTIVE_AT_CHANGE}
""")

# A membership that was changed since the plan is not a row of `member`.
_END_PLANNED = _end_memberships(f"""
    SELECT m.user_id, m.cause, {IN_FINISHED_SAMPLE} AS in_sample
    FROM change,
        unnest(CAST(:user_ids AS bigint[]), CAST(:membership_ids AS bigint[]),
            CAST(:updated_times AS timestamptz[])) AS planned (user_id, membership_id, updated_at),
        memberships m JOIN users u ON u.id = m.user_id
    WHERE m.segment_id = :segment_id AND m.user_id = planned.user_id
      AND m.id = planned.membership_id AND m.updated_at = planned.updated_at
      AND m.cause = 'MANUAL' AND {ACTIVE_AT_CHANGE}
""")


@dataclass(frozen=True, slots=True)
class PlannedRemoval:
    """A membership that a REPLACE ends if it has not changed since the plan."""

    user_id: int
    membership_id: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Removed:
    """The users whose memberships a statement has ended, and those in the sample."""

    ended: frozenset[int]
    in_sample: frozenset[int]


async def remove_without_exclusion(
    session: WriteSession,
    *,
    segment_id: int,
    user_ids: Sequence[int],
    actor: Actor,
    import_id: int,
) -> Removed:
    """Remove users, without excluding them from the segment's rollout.

    Args:
        session: The session.
        segment_id: The segment.
        user_ids: The ids of the users, without repeats.
        actor: The author of the change.
        import_id: The import that makes the change.
    """
    values = await _parameters(session, segment_id, user_ids, actor, import_id)
    row = await change_in_order(session, _END, values, user_ids)
    return Removed(frozenset(row.ended), frozenset(row.in_sample))


async def remove_as_planned(
    session: WriteSession,
    *,
    segment_id: int,
    planned: Sequence[PlannedRemoval],
    actor: Actor,
    import_id: int,
) -> Removed:
    """End planned memberships that have not changed since the plan, without excluding the users."""
    user_ids = [removal.user_id for removal in planned]
    values = {
        **await _parameters(session, segment_id, user_ids, actor, import_id),
        "membership_ids": [removal.membership_id for removal in planned],
        "updated_times": [removal.updated_at for removal in planned],
    }
    row = await change_in_order(session, _END_PLANNED, values, user_ids)
    return Removed(frozenset(row.ended), frozenset(row.in_sample))


async def _parameters(
    session: WriteSession,
    segment_id: int,
    user_ids: Sequence[int],
    actor: Actor,
    import_id: int,
) -> dict[str, object]:
    sample = await read_finished_sample(session, segment_id)
    return {
        "segment_id": segment_id,
        "user_ids": list(user_ids),
        "actor": actor.name,
        "api_key_id": actor.api_key_id,
        "import_id": import_id,
        **sample.parameters,
        "rollout_expires_at": sample.expires_at,
        "rollout_actor": sample.actor,
        "rollout_api_key_id": sample.api_key_id,
    }
