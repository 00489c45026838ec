"""Records of explanations."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from segmentql.history.records import HistoryEntryRecord
from segmentql.memberships.records import MembershipRecord
from segmentql.segments.records import SegmentRecord
from segmentql.tables import RolloutState


class ExplanationReason(enum.StrEnum):
    """The reason why a user is or is not in a segment."""

    ADDED_BY_HAND = "ADDED_BY_HAND"
    IMPORTED = "IMPORTED"
    IN_SAMPLE = "IN_SAMPLE"
    ENROLLED_WHEN_STORED = "ENROLLED_WHEN_STORED"
    NO_SUCH_SEGMENT = "NO_SUCH_SEGMENT"
    SEGMENT_DELETED = "SEGMENT_DELETED"
    USER_NOT_STORED = "USER_NOT_STORED"
    NEVER_ADDED = "NEVER_ADDED"
    REMOVED_BY_HAND = "REMOVED_BY_HAND"
    EXCLUDED = "EXCLUDED"
    EXPIRED = "EXPIRED"
    ABOVE_BOUND = "ABOVE_BOUND"
    STAGE_NOT_STARTED = "STAGE_NOT_STARTED"
    PASS_NOT_FINISHED = "PASS_NOT_FINISHED"  # noqa: S105 - not a password
    NEW_USERS_NOT_ENROLLED = "NEW_USERS_NOT_ENROLLED"
    REMOVED_BY_ROLLOUT = "REMOVED_BY_ROLLOUT"
    ROLLOUT_EXPIRED = "ROLLOUT_EXPIRED"
    ROLLOUT_PAUSED = "ROLLOUT_PAUSED"
    ROLLOUT_STOPPED = "ROLLOUT_STOPPED"
    LEFT_WITH_USER = "LEFT_WITH_USER"


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The storing of a user that is in force at the time of the explanation."""

    created_at: datetime
    insert_seq: int
    """The number of the user in order of insertion, which `Pass.last_insert_seq` refers to."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """An exclusion of the user that is in force at the time of the explanation."""

    at: datetime
    actor: str | None


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
    is_imported: bool
    """Whether an import added the user."""
    membership: MembershipRecord | None
    """The membership, if the user is in the segment and the membership still exists."""
    exclusion: Exclusion | None
    plan: PlanInForce | None
    """None if the segment had no rollout, or if its plan is not known."""
    rollout_log_began_at: datetime | None
    """For a rollout that is older than the log of rollouts, when the log began."""
    latest_pass: Pass | None
    join_pass: Pass | None
    """The pass that was the latest with a sample when the user joined."""
    hash: int | None
    """The user's rollout hash for the segment. None if there is no segment."""

    @property
    def is_stored(self) -> bool:
        """Whether the user was stored, or may have been: deleted later, and stored nobody knows
        when, because lifetimes of users were not recorded then."""
        return self.lifetime is not None or self.user_deleted_later_at is not None

    @property
    def joined_at(self) -> datetime | None:
        """When the user joined, if the user is in the segment or was in it last."""
        if self.joined is not None:
            return self.joined.at
        return self.membership.joined_at if self.membership else None


@dataclass(frozen=True, slots=True)
class RolloutPosition:
    """The position of a user in the order by which the rollout selects its sample."""

    hash: int
    hash_percent: float
    """The hash as a percentage of the range of hashes."""
    bound_hash: int | None
    """The largest hash of the sample. None if the pass has no sample yet."""
    in_sample: bool
    percent: float
    """The percent in force."""
    pass_finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class ExplanationStep:
    """A check that led to the reason."""

    check: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class ExplanationRecord:
    """Why a user is or is not in a segment."""

    is_in: bool
    reason: ExplanationReason
    summary: str
    at: datetime
    segment: SegmentRecord | None
    since: datetime | None
    """When the user came into this state, if it is known."""
    until: datetime | None
    """When this state will end, if it is known."""
    actor: str | None
    membership: MembershipRecord | None
    last_entry: HistoryEntryRecord | None
    rollout: RolloutPosition | None
    steps: Sequence[ExplanationStep]
