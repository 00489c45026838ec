"""The facts of an explanation: what is recorded about a user and a segment at one time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from segmentql.history.records import HistoryEntryRecord
from segmentql.memberships.records import MembershipRecord
from segmentql.segments.records import SegmentRecord
from segmentql.tables import RolloutState


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
class UnknownPlan:
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
    history_since: datetime | None
    """The beginning of history. None if no older history was dropped."""
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
    last_entry: HistoryEntryRecord | None
    """The last join or leave of the user at this segment."""
    join_entry: HistoryEntryRecord | None
    """The join that `last_entry` ended, or `last_entry` itself if it is a join."""
    membership: MembershipRecord | None
    """The membership, if the user is in the segment and the membership has not ended since."""
    exclusion: Exclusion | None
    plan: PlanInForce | None
    """None if the segment had no rollout, or if its plan is not known."""
    unknown_plan: UnknownPlan | None
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
        if self.join_entry is not None:
            return self.join_entry.at
        return self.membership.joined_at if self.membership else None
