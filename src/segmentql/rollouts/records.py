"""Records of rollouts."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from segmentql.audit.records import AuditState
from segmentql.tables import PassPhase, RolloutState


class RolloutStatus(enum.StrEnum):
    """The status of a rollout, computed from its schedule and PostgreSQL's clock."""

    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    WITHDRAWING = "WITHDRAWING"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


class StageStatus(enum.StrEnum):
    """The status of a stage."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    DONE = "DONE"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True, slots=True)
class StageRecord:
    """A stage of a rollout."""

    percent: Decimal
    starts_at: datetime
    status: StageStatus


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """A rollout: its decisions, the progress of its current pass, and its computed status."""

    segment_id: int
    slug: str
    """The slug of the segment."""
    state: RolloutState
    enroll_new_users: bool
    expires_at: datetime | None
    actor: str | None
    """The name of the API key that set the plan."""
    api_key_id: str | None
    started_at: datetime | None
    finished_at: datetime | None
    failure: str | None
    max_percent: Decimal
    """The highest percent of a pass by which a current member may have joined."""
    pass_number: int
    phase: PassPhase
    stage: int
    """The number of the stage that the current pass carries out, from 1."""
    pass_percent: Decimal
    removes_members: bool
    last_insert_seq: int
    bound_hash: int
    bound_user_id: int
    cursor_user_id: int
    current: int
    """The number of the stage in force by the schedule, from 1; 0 before the first stage."""
    percents: Sequence[Decimal]
    start_times: Sequence[datetime]
    done_times: Sequence[datetime | None]
    read_at: datetime
    """PostgreSQL's clock when the record was read."""
    expired: bool
    work_due: bool
    status: RolloutStatus
    percent: Decimal
    """The percent in force."""
    withdrawn: bool
    users_total: int
    users_seen: int
    progress: float
    """The progress of the current pass, 0 to 1."""

    @property
    def global_id(self) -> str:
        """The opaque id by which clients know the rollout."""
        return f"rol_{self.segment_id}"

    @property
    def audit_state(self) -> AuditState:
        """The state for the audit log."""
        return {
            "slug": self.slug,
            "status": self.status,
            "enrollNewUsers": self.enroll_new_users,
            "expiresAt": self.expires_at,
            "stages": [
                {"percent": percent, "startsAt": starts_at}
                for percent, starts_at in zip(self.percents, self.start_times, strict=True)
            ],
            "failure": self.failure,
        }

    @property
    def stages(self) -> list[StageRecord]:
        """The stages in order of time."""
        stages = zip(self.percents, self.start_times, self.done_times, strict=True)
        return [
            StageRecord(
                percent,
                starts_at,
                StageStatus.DONE if done_at else self._unfinished_stage_status(number),
            )
            for number, (percent, starts_at, done_at) in enumerate(stages, start=1)
        ]

    def _unfinished_stage_status(self, number: int) -> StageStatus:
        ended = self.status in {RolloutStatus.CANCELLED, RolloutStatus.COMPLETED} or self.withdrawn
        if ended or number < self.current:
            return StageStatus.SKIPPED
        return StageStatus.ACTIVE if number == self.current else StageStatus.PENDING

    def highest_percent(self, *, up_to_stage: int) -> Decimal:
        """Return the highest percent by which a member may have joined, up to a stage.

        New users join at the percent in force even if no pass for that stage has begun.
        """
        without_pass = self.percents[max(self.stage, 0) : max(up_to_stage, 0)]
        return max([self.max_percent, *without_pass])


@dataclass(frozen=True, slots=True)
class RolloutCounts:
    """Exact numbers of users of a rollout."""

    enrolled: int
    """The number of active members that the rollout added."""
    excluded: int
    """The number of users who were removed manually."""
