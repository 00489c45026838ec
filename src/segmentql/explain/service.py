"""Reads what explains why a user is or is not in a segment."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, text

from segmentql.adapters.database import ReadSession
from segmentql.explain.reasons import find_reason
from segmentql.explain.records import (
    Exclusion,
    ExplanationRecord,
    Facts,
    Lifetime,
    Pass,
    PlanInForce,
)
from segmentql.explain.rollout_view import rollout_view
from segmentql.explain.sentences import steps, summary
from segmentql.history.records import HistoryEntryRecord
from segmentql.memberships.records import MembershipRecord
from segmentql.segments.records import SegmentRecord
from segmentql.segments.service import SEGMENT_COLUMNS, segment_record
from segmentql.tables import Cause, Operation, RolloutState
from segmentql.users.records import UserRecord
from segmentql.users.service import user_id_by_key_at

_PASS_COLUMNS: Final = (
    "stage",
    "percent",
    "is_withdrawal",
    "started_at",
    "sampled_at",
    "last_insert_seq",
    "bound_hash",
    "bound_user_id",
    "finished_at",
)


def _pass_columns(name: str) -> str:
    return ", ".join(f"{name}.{column} AS {name}_{column}" for column in _PASS_COLUMNS)


# One statement, so that all facts are of one snapshot. `bound` is the latest time of an event that
# counts. Without a time in the past every visible event counts, also one that was recorded between
# now(), the start of the statement, and the snapshot.
_READ_FACTS = text(f"""
WITH moment AS MATERIALIZED (
    SELECT coalesce(CAST(:as_of AS timestamptz), now()) AS at,
        coalesce(CAST(:as_of AS timestamptz), 'infinity') AS bound,
        CAST(:as_of AS timestamptz) IS NOT NULL AS is_past,
        coalesce(CAST(:as_of AS timestamptz) > now(), false) AS in_the_future
), segment AS MATERIALIZED (
    SELECT s.* FROM segments s, moment
    WHERE s.slug = :slug AND s.created_at <= moment.bound
    ORDER BY s.id DESC LIMIT 1
), lifetime AS MATERIALIZED (
    SELECT created_at, key, insert_seq FROM users, moment
    WHERE id = :user_id AND created_at <= moment.bound
    UNION ALL
    SELECT created_at, key, insert_seq FROM user_lifetimes, moment
    WHERE user_id = :user_id AND created_at <= moment.bound AND deleted_at > moment.at
        AND moment.is_past
    LIMIT 1
), deletion AS MATERIALIZED (
    -- A lifetime says when the user was stored. Deletions before migration 0008 have none.
    SELECT max(deleted_at) FILTER (WHERE deleted_at <= moment.bound) AS before,
        max(deleted_at) FILTER (WHERE deleted_at > moment.bound AND NOT has_lifetime) AS later
    FROM (
        SELECT deleted_at, EXISTS (
            SELECT FROM user_lifetimes l
            WHERE l.user_id = d.id AND l.deleted_at = d.deleted_at
        ) AS has_lifetime
        FROM deleted_users d WHERE id = :user_id
        UNION ALL
        SELECT deleted_at, true FROM user_lifetimes WHERE user_id = :user_id
    ) AS deletions, moment
), entry AS MATERIALIZED (
    SELECT h.* FROM history h, segment, moment
    WHERE h.user_id = :user_id AND h.segment_id = segment.id AND h.at <= moment.bound
    ORDER BY h.at DESC LIMIT 1
), joined AS MATERIALIZED (
    SELECT h.* FROM history h, entry
    WHERE h.user_id = :user_id AND h.segment_id = entry.segment_id
        AND h.membership_id = entry.membership_id AND h.operation = 'JOINED' AND h.at <= entry.at
), member AS MATERIALIZED (
    -- If old partitions of history were dropped, a current membership has no join.
    SELECT m.*, least(m.expires_at, segment.deleted_at) AS ends_at
    FROM segment CROSS JOIN moment
    JOIN memberships m ON m.user_id = :user_id AND m.segment_id = segment.id
    LEFT JOIN entry ON true
    WHERE m.id = entry.membership_id OR NOT moment.is_past
), exclusion AS MATERIALIZED (
    SELECT e.excluded_at AS at, e.actor FROM exclusions e, segment, moment
    WHERE e.user_id = :user_id AND e.segment_id = segment.id AND NOT moment.is_past
    UNION ALL
    SELECT last.at, last.actor FROM moment CROSS JOIN lifetime CROSS JOIN LATERAL (
        SELECT l.at, l.actor, l.operation FROM exclusion_log l, segment
        WHERE l.user_id = :user_id AND l.segment_id = segment.id AND l.at <= moment.bound
        ORDER BY l.id DESC LIMIT 1
    ) AS last
    WHERE moment.is_past AND last.operation = 'EXCLUDED' AND last.at >= lifetime.created_at
), event AS MATERIALIZED (
    SELECT e.* FROM rollout_events e, segment, moment
    WHERE e.segment_id = segment.id AND e.at <= moment.bound ORDER BY e.id DESC LIMIT 1
), plan_event AS MATERIALIZED (
    SELECT CASE e.event WHEN 'SET' THEN e.at END AS at, e.actor FROM rollout_events e, event
    WHERE e.segment_id = event.segment_id AND e.id <= event.id AND e.event IN ('SET', 'BACKFILLED')
    ORDER BY e.id DESC LIMIT 1
), first_event AS MATERIALIZED (
    SELECT e.at FROM rollout_events e, segment
    WHERE e.segment_id = segment.id AND e.event = 'BACKFILLED'
), latest_pass AS MATERIALIZED (
    SELECT p.* FROM rollout_passes p, segment, moment
    WHERE p.segment_id = segment.id AND p.started_at <= moment.bound
    ORDER BY p.pass_number DESC LIMIT 1
), join_pass AS MATERIALIZED (
    SELECT p.* FROM rollout_passes p, joined
    WHERE p.segment_id = joined.segment_id AND p.sampled_at <= joined.at
    ORDER BY p.pass_number DESC LIMIT 1
)
SELECT moment.at AS now, moment.is_past, moment.in_the_future,
    {SEGMENT_COLUMNS}, s.deleted_by AS segment_deleted_by,
    rollout_hash_v1(s.id, :user_id) AS hash,
    lifetime.created_at AS user_created_at, lifetime.key AS user_key, lifetime.insert_seq,
    deletion.before AS user_deleted_at, deletion.later AS user_deleted_later_at,
    entry.membership_id AS entry_membership_id, entry.operation AS entry_operation,
    entry.at AS entry_at, entry.recorded_at AS entry_recorded_at, entry.cause AS entry_cause,
    entry.actor AS entry_actor,
    joined.membership_id AS joined_membership_id, joined.operation AS joined_operation,
    joined.at AS joined_at, joined.recorded_at AS joined_recorded_at, joined.cause AS joined_cause,
    joined.actor AS joined_actor, joined.import_id AS joined_import_id,
    member.id AS member_id, member.joined_at AS member_joined_at,
    member.updated_at AS member_updated_at, member.expires_at AS member_expires_at,
    member.cause AS member_cause, member.actor AS member_actor,
    member.import_id AS member_import_id, member.ends_at AS member_ends_at,
    exclusion.at AS excluded_at, exclusion.actor AS excluded_by,
    event.state, event.at AS event_at, event.actor AS event_actor, event.enroll_new_users,
    event.expires_at AS plan_expires_at, event.paused_at, event.failure, event.percents,
    event.start_times, plan_event.at AS plan_set_at, plan_event.actor AS plan_set_by,
    first_event.at AS rollout_log_began_at,
    {_pass_columns("latest_pass")}, {_pass_columns("join_pass")}
FROM moment
CROSS JOIN deletion
LEFT JOIN segment s ON true
LEFT JOIN lifetime ON true
LEFT JOIN entry ON true
LEFT JOIN joined ON true
LEFT JOIN member ON true
LEFT JOIN exclusion ON true
LEFT JOIN event ON true
LEFT JOIN plan_event ON true
LEFT JOIN first_event ON true
LEFT JOIN latest_pass ON true
LEFT JOIN join_pass ON true
""")


async def explain(
    session: ReadSession,
    *,
    user_id: int | None = None,
    user_key: str | None = None,
    slug: str,
    as_of: datetime | None = None,
) -> ExplanationRecord | None:
    """Explain why a user is or is not in the segment with a slug.

    Args:
        session: The session.
        user_id: The user's id. The user may be stored or not. Set either `user_id` or `user_key`.
        user_key: The key that the user had at the time, or last before it.
        slug: The slug. It may have had several segments, or none.
        as_of: A time in the past; None for now.

    Returns:
        The explanation, or None if `as_of` is in the future.
    """
    if user_key is not None:
        user_id = await user_id_by_key_at(session, user_key, as_of)
    values = {"user_id": user_id, "slug": slug, "as_of": as_of}
    row = (await session.execute(_READ_FACTS, values)).one()
    return None if row.in_the_future else explain_facts(_facts(row, user_id, slug))


def explain_facts(facts: Facts) -> ExplanationRecord:
    """Return the explanation that follows from the facts."""
    verdict = find_reason(facts)
    rollout = rollout_view(facts) if facts.is_stored else None
    return ExplanationRecord(
        is_in=facts.is_in,
        reason=verdict.reason,
        summary=summary(facts, verdict),
        at=facts.at,
        segment=facts.segment,
        since=verdict.since,
        until=verdict.until,
        actor=verdict.actor,
        membership=facts.membership,
        last_entry=facts.entry,
        rollout=rollout.position if rollout else None,
        steps=steps(facts),
    )


def _facts(row: Row[Any], user_id: int | None, slug: str) -> Facts:
    segment = segment_record(row) if row.segment_id is not None else None
    lifetime = (
        Lifetime(row.user_created_at, row.insert_seq) if row.user_created_at is not None else None
    )
    has_ended = row.member_ends_at is not None and row.member_ends_at <= row.now
    if row.is_past:
        is_in = row.entry_operation == Operation.JOINED and not has_ended
    else:
        is_in = row.member_id is not None and not has_ended
    entry = _entry(row, "entry", user_id, segment)
    if row.member_id is not None and has_ended and segment is not None and user_id is not None:
        entry = _unrecorded_leave(row, user_id, segment)
    return Facts(
        user_id=user_id,
        slug=slug,
        at=row.now,
        is_past=row.is_past,
        segment=segment,
        segment_deleted_by=row.segment_deleted_by,
        lifetime=lifetime,
        user_deleted_at=row.user_deleted_at,
        user_deleted_later_at=row.user_deleted_later_at,
        is_in=is_in,
        entry=entry,
        joined=_entry(row, "joined", user_id, segment),
        is_imported=(row.member_import_id or row.joined_import_id) is not None,
        membership=_membership(row, user_id, segment) if is_in else None,
        exclusion=Exclusion(row.excluded_at, row.excluded_by) if row.excluded_at else None,
        plan=_plan(row),
        rollout_log_began_at=row.rollout_log_began_at,
        latest_pass=_pass(row, "latest_pass"),
        join_pass=_pass(row, "join_pass"),
        hash=row.hash,
    )


def _entry(
    row: Row[Any], name: str, user_id: int | None, segment: SegmentRecord | None
) -> HistoryEntryRecord | None:
    columns = row._mapping
    if segment is None or user_id is None or columns[f"{name}_membership_id"] is None:
        return None
    return HistoryEntryRecord(
        membership_id=columns[f"{name}_membership_id"],
        user_id=user_id,
        segment=segment,
        operation=Operation(columns[f"{name}_operation"]),
        at=columns[f"{name}_at"],
        recorded_at=columns[f"{name}_recorded_at"],
        cause=Cause(columns[f"{name}_cause"]),
        actor=columns[f"{name}_actor"],
    )


def _unrecorded_leave(row: Row[Any], user_id: int, segment: SegmentRecord) -> HistoryEntryRecord:
    """Return the leave of a membership that has ended and whose leave no worker has recorded."""
    by_ttl = row.member_ends_at == row.member_expires_at
    return HistoryEntryRecord(
        membership_id=row.member_id,
        user_id=user_id,
        segment=segment,
        operation=Operation.LEFT,
        at=row.member_ends_at,
        recorded_at=None,
        cause=Cause.TTL if by_ttl else Cause.SEGMENT_DELETED,
        actor=None if by_ttl else row.segment_deleted_by,
    )


def _membership(
    row: Row[Any], user_id: int | None, segment: SegmentRecord | None
) -> MembershipRecord | None:
    if row.member_id is None or segment is None or user_id is None:
        return None
    return MembershipRecord(
        membership_id=row.member_id,
        user=UserRecord(user_id, row.user_created_at, row.user_key),
        segment=segment,
        joined_at=row.member_joined_at,
        updated_at=row.member_updated_at,
        expires_at=row.member_expires_at,
        cause=Cause(row.member_cause),
        actor=row.member_actor,
    )


def _plan(row: Row[Any]) -> PlanInForce | None:
    if row.state is None:
        return None
    return PlanInForce(
        state=RolloutState(row.state),
        set_at=row.plan_set_at,
        set_by=row.plan_set_by,
        changed_at=row.event_at,
        changed_by=row.event_actor,
        enroll_new_users=row.enroll_new_users,
        expires_at=row.plan_expires_at,
        paused_at=row.paused_at,
        failure=row.failure,
        percents=row.percents,
        start_times=row.start_times,
    )


def _pass(row: Row[Any], name: str) -> Pass | None:
    """Return a pass as it was at the time of the explanation."""
    columns = row._mapping
    values = {column: columns[f"{name}_{column}"] for column in _PASS_COLUMNS}
    if values["started_at"] is None:
        return None
    if row.is_past:
        if values["sampled_at"] is not None and values["sampled_at"] > row.now:
            values.update(
                sampled_at=None, last_insert_seq=None, bound_hash=None, bound_user_id=None
            )
        if values["finished_at"] is not None and values["finished_at"] > row.now:
            values.update(finished_at=None)
    return Pass(**values)
