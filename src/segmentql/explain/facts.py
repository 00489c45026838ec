"""The facts of an explanation: what is recorded about a user and a segment at one time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Row

from segmentql.adapters.database import ReadSession
from segmentql.explain.facts_query import PASS_COLUMNS, READ_FACTS
from segmentql.history.records import HistoryEntryRecord
from segmentql.memberships.records import MembershipRecord
from segmentql.segments.records import SegmentRecord
from segmentql.segments.service import segment_record
from segmentql.tables import Cause, Operation, RolloutState
from segmentql.users.records import UserRecord


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The period from storing the user to the deletion, with the explanation's time in it."""

    created_at: datetime
    insert_seq: int
    """The number of the user in order of insertion, which `Pass.last_insert_seq` refers to."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """An exclusion of the user that is in force at the time of the explanation."""

    at: datetime
    actor: str | None
    import_id: int | None
    """The import that excluded the user, if any."""


@dataclass(frozen=True, slots=True)
class PlanInForce:
    """The rollout's plan and state at the time of the explanation."""

    state: RolloutState
    set_at: datetime | None
    """When the plan was set. None if the plan is older than the log of rollouts."""
    set_by: str | None
    changed_at: datetime
    """When the plan was set, paused, resumed or cancelled, or failed, whichever was last."""
    changed_by: str | None
    enroll_new_users: bool
    expires_at: datetime | None
    paused_at: datetime | None
    failure: str | None
    percents: Sequence[Decimal]
    start_times: Sequence[datetime]


@dataclass(frozen=True, slots=True)
class PlanGap:
    """The period in which the rollout's plan is not known. It has the explanation's time in it.

    Plans have been recorded since migration 0008, but not by processes of the version before it.
    """

    since: datetime | None
    """The last event of the rollout that was recorded before. None if there is none."""
    until: datetime | None
    """The first event of the rollout that was recorded after. None if there is none."""


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass of the rollout, as it is at the time of the explanation."""

    stage: int
    percent: Decimal
    is_withdrawal: bool
    started_at: datetime
    sampled_at: datetime | None
    """None if the pass had no sample yet. The sample's values are then None, too."""
    last_insert_seq: int | None
    bound_hash: int | None
    bound_user_id: int | None
    finished_at: datetime | None
    """None if the pass had not finished yet."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is recorded about a user and a segment at one time, read in one snapshot."""

    user_id: int | None
    """None if the caller named the user by a key that no user had."""
    slug: str
    at: datetime
    is_past: bool
    """Whether the caller asked for a time in the past. Otherwise `at` is the database's time."""
    segment: SegmentRecord | None
    """The newest segment with the slug at this time, which may be deleted. None: never created."""
    segment_deleted_by: str | None
    lifetime: Lifetime | None
    """None if the user was not stored, or if it is not known when."""
    user_deleted_at: datetime | None
    """When the user was last deleted until this time, if it is known."""
    user_deleted_later_at: datetime | None
    """When the user was deleted after this time in the past."""
    is_in: bool
    entry: HistoryEntryRecord | None
    """The last join or leave of the user at this segment."""
    joined: HistoryEntryRecord | None
    """The join that `entry` ended, or `entry` itself if it is a join."""
    membership: MembershipRecord | None
    """The membership, if the user is in the segment and the membership has not ended since."""
    exclusion: Exclusion | None
    plan: PlanInForce | None
    """None if the segment had no rollout, or if its plan is not known."""
    plan_gap: PlanGap | None
    """None if the plan is known, or if the segment had no rollout."""
    latest_pass: Pass | None
    """None if no pass has begun, if the next pass is due, or if the latest pass is not known."""
    is_latest_pass_known: bool
    """Whether every pass is recorded, or the next pass is due."""
    last_decision_at: datetime | None
    """When a pass last began or took its sample, except passes of withdrawals."""
    join_pass: Pass | None
    """The pass that was the latest with a sample when the user joined."""
    is_join_pass_known: bool
    """Whether `join_pass` is that pass. Otherwise a later one may not be recorded."""
    removal_pass: Pass | None
    """The pass that removed the user. None if none did, or if the pass is not known."""
    hash: int | None
    """The user's rollout hash for the segment. None if there is no segment."""

    @property
    def is_stored(self) -> bool:
        """Whether the user was stored, or may have been: the user was deleted later, and the time
        of storing is not recorded."""
        return self.lifetime is not None or self.user_deleted_later_at is not None

    @property
    def joined_at(self) -> datetime | None:
        """When the user joined, if the user is in the segment or was in it last."""
        if self.joined is not None:
            return self.joined.at
        return self.membership.joined_at if self.membership else None


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
    """
    values = {"user_id": user_id, "slug": slug, "as_of": as_of}
    row = (await session.execute(READ_FACTS, values)).one()
    return None if row.in_the_future else _facts(row, user_id, slug)


def _facts(row: Row[Any], user_id: int | None, slug: str) -> Facts:
    segment = segment_record(row) if row.segment_id is not None else None
    lifetime = (
        Lifetime(row.user_created_at, row.insert_seq) if row.user_created_at is not None else None
    )
    has_left = row.member_ends_at is not None and row.member_ends_at <= row.now
    if row.is_past:
        is_in = row.entry_operation == Operation.JOINED and not has_left
    else:
        is_in = row.member_id is not None and not has_left
    entry, joined = _entry(row, "entry", user_id, segment), _entry(row, "joined", user_id, segment)
    if row.member_id is not None and has_left and segment is not None and user_id is not None:
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
        joined=joined,
        # Hidden from the end on, because a worker deletes the row at any time after it.
        membership=(
            _membership(row, user_id, segment) if is_in and not row.member_has_ended else None
        ),
        exclusion=(
            Exclusion(row.excluded_at, row.excluded_by, row.exclusion_import_id)
            if row.excluded_at
            else None
        ),
        plan=None if row.is_plan_missed else _plan(row),
        plan_gap=(
            PlanGap(row.plan_unknown_since, row.plan_unknown_until) if row.is_plan_missed else None
        ),
        latest_pass=None if row.is_latest_pass_missed else _pass(row, "latest_pass"),
        is_latest_pass_known=not row.is_latest_pass_missed or bool(row.is_pass_due),
        last_decision_at=row.decided_at,
        join_pass=_pass(row, "join_pass"),
        is_join_pass_known=joined is not None and not row.is_join_pass_missed,
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
