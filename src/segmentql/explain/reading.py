"""Reads the facts of an explanation in one statement."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row

from segmentql.adapters.sessions import ReadSession
from segmentql.errors import HistoryDropped
from segmentql.explain.facts import Exclusion, Facts, Lifetime, Pass, PlanInForce, UnknownPlan
from segmentql.explain.facts_query import PASS_COLUMNS, READ_FACTS
from segmentql.history.records import HistoryEntryRecord
from segmentql.history.retention import finite_time
from segmentql.memberships.records import MembershipRecord
from segmentql.segments.records import SegmentRecord
from segmentql.segments.rows import segment_record
from segmentql.tables import Cause, Operation, RolloutState
from segmentql.users.records import UserRecord


async def read_facts(
    session: ReadSession, *, user_id: int | None, slug: str, as_of: datetime | None
) -> Facts | None:
    """Read the facts in one snapshot.

    Args:
        session: The session.
        user_id: The user's id; None if no user is known to have had the caller's key.
        slug: The slug of a segment.
        as_of: A time in the past; None for now.

    Returns:
        The facts, or None if `as_of` is in the future.

    Raises:
        HistoryDropped: `as_of` is before the beginning of history.
    """
    values = {"user_id": user_id, "slug": slug, "as_of": as_of}
    row = (await session.execute(READ_FACTS, values)).one()
    if row.is_dropped:
        raise HistoryDropped(row.earliest_at)
    return None if row.in_the_future else _facts(row, user_id, slug)


def _facts(row: Row[Any], user_id: int | None, slug: str) -> Facts:
    segment = segment_record(row) if row.segment_id is not None else None
    lifetime = (
        Lifetime(row.user_created_at, row.insert_seq) if row.user_created_at is not None else None
    )
    has_left = row.member_ends_at is not None and row.member_ends_at <= row.now
    if row.is_past:
        is_in = row.last_entry_operation == Operation.JOINED and not has_left
    else:
        is_in = row.member_id is not None and not has_left
    last_entry = _entry(row, "last_entry", user_id, segment)
    join_entry = _entry(row, "join_entry", user_id, segment)
    if row.member_id is not None and has_left and segment is not None and user_id is not None:
        last_entry = _unrecorded_leave(row, user_id, segment)
    return Facts(
        user_id=user_id,
        slug=slug,
        at=row.now,
        is_past=row.is_past,
        history_since=finite_time(row.earliest_at),
        segment=segment,
        segment_deleted_by=row.segment_deleted_by,
        lifetime=lifetime,
        user_deleted_at=row.user_deleted_at,
        user_deleted_later_at=row.user_deleted_later_at,
        is_in=is_in,
        last_entry=last_entry,
        join_entry=join_entry,
        # Hidden from the end on, because a worker deletes the row at any time after it.
        membership=(
            _membership(row, user_id, segment) if is_in and not row.member_has_ended else None
        ),
        exclusion=(
            Exclusion(row.excluded_at, row.excluded_by, row.exclusion_import_id)
            if row.excluded_at
            else None
        ),
        plan=None if row.is_plan_unknown else _plan(row),
        unknown_plan=(
            UnknownPlan(row.plan_unknown_since, row.plan_unknown_until)
            if row.is_plan_unknown
            else None
        ),
        latest_pass=None if row.is_latest_pass_unknown else _pass(row, "latest_pass"),
        is_latest_pass_known=not row.is_latest_pass_unknown or bool(row.is_pass_due),
        last_decision_at=row.decided_at,
        join_pass=_pass(row, "join_pass"),
        is_join_pass_known=join_entry is not None and not row.is_join_pass_unknown,
        removal_pass=_pass(row, "removal_pass"),
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
        import_id=columns[f"{name}_import_id"],
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
        import_id=row.member_import_id,
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
    values = {column: columns[f"{name}_{column}"] for column in PASS_COLUMNS}
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
