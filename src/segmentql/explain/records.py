"""Records of explanations."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from segmentql.history.records import HistoryEntryRecord
from segmentql.memberships.records import MembershipRecord
from segmentql.segments.records import SegmentRecord


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
class RolloutPosition:
    """The position of a user in the order in which the rollout selects its sample."""

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
