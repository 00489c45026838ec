"""A reference model of rollouts in plain Python: rules and clocks, without tables or chunks."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias

from segmentql.memberships.records import OnExisting
from tests.rollouts.helpers import expected_sample, joins_on_insert

LogicalTime: TypeAlias = tuple[int, int]
"""The seconds that have passed, and the number of the command."""


@dataclass
class ModelMembership:
    """One membership. `end` is its expiry or the time when it ended."""

    user_id: int
    start: LogicalTime
    end: LogicalTime | None
    joined_by: str
    """The cause of the join. `cause` is the current cause of the membership."""
    cause: str
    end_cause: str = "TTL"


@dataclass
class Rollout:
    """A plan and its current pass."""

    stages: Sequence[tuple[Decimal, LogicalTime]]
    enroll_new_users: bool
    expires: LogicalTime | None
    max_percent: Decimal
    """The highest percent by which a member may have joined before the current stage."""
    stage: int
    """Number of the current stage (0 before the first), which `max_percent` does not include."""
    state: str = "ACTIVE"
    paused_at: LogicalTime | None = None
    withdrawn: bool = False
    phase: str = "DUE"
    pass_stage: int = -1
    pass_percent: Decimal = Decimal(0)
    removes_members: bool = False
    pass_users: dict[int, int] = field(default_factory=dict)
    """The users of the pass, with the insert_seq of each."""
    sample: set[int] = field(default_factory=set)

    def current(self, now: LogicalTime) -> int:
        clock = self.paused_at or now
        return sum(start <= clock for _, start in self.stages)

    def percent_in_force(self, now: LogicalTime) -> Decimal:
        current = self.current(now)
        return self.stages[current - 1][0] if current and not self.withdrawn else Decimal(0)

    def expired(self, now: LogicalTime) -> bool:
        return self.expires is not None and self.expires <= now

    def apply_time(self, now: LogicalTime) -> None:
        """Record every percent that was in force, whether or not a worker ran."""
        while self.stage < self.current(now):
            if self.stage:
                self.max_percent = max(self.max_percent, self.stages[self.stage - 1][0])
            self.stage += 1

    def work_due(self, now: LogicalTime) -> bool:
        return self.state == "WITHDRAWING" or (
            self.state == "ACTIVE"
            and (
                self.phase != "DONE"
                or (self.current(now) > self.pass_stage and not self.expired(now))
            )
        )

    def status(self, now: LogicalTime) -> str:
        if self.state != "ACTIVE":
            return self.state
        if self.work_due(now):
            return "RUNNING"
        if self.expired(now) or self.current(now) == len(self.stages):
            return "COMPLETED"
        return "WAITING" if self.current(now) else "SCHEDULED"


@dataclass
class Segment:
    segment_id: int
    memberships: list[ModelMembership] = field(default_factory=list)
    excluded: set[int] = field(default_factory=set)
    rollout: Rollout | None = None

    def member(self, user_id: int, now: LogicalTime) -> ModelMembership | None:
        memberships_of_user = [
            membership for membership in self.active(now) if membership.user_id == user_id
        ]
        return memberships_of_user[0] if memberships_of_user else None

    def active(self, now: LogicalTime) -> list[ModelMembership]:
        return [
            membership
            for membership in self.memberships
            if membership.end is None or membership.end > now
        ]

    def entries(self, user_id: int, now: LogicalTime) -> list[tuple[str, str]]:
        """Return the expected history of a user as (operation, cause) pairs."""
        entries: list[tuple[str, str]] = []
        for membership in self.memberships:
            if membership.user_id == user_id:
                entries.append(("JOINED", membership.joined_by))
                if membership.end is not None and membership.end <= now:
                    entries.append(("LEFT", membership.end_cause))
        return entries

    def join(self, user_id: int, now: LogicalTime, end: LogicalTime | None, cause: str) -> None:
        self.memberships.append(ModelMembership(user_id, now, end, cause, cause))

    def insert_user(self, user_id: int, now: LogicalTime) -> None:
        """Apply the insert of a user that did not name this segment."""
        rollout = self.rollout
        if (
            rollout is not None
            and rollout.enroll_new_users
            and rollout.state in {"ACTIVE", "PAUSED"}
            and not rollout.expired(now)
            and joins_on_insert(self.segment_id, user_id, rollout.percent_in_force(now))
        ):
            self.join(user_id, now, rollout.expires, "ROLLOUT")

    def add(
        self, user_id: int, now: LogicalTime, end: LogicalTime | None, on_existing: OnExisting
    ) -> None:
        self.excluded.discard(user_id)
        membership = self.member(user_id, now)
        if membership is None:
            self.join(user_id, now, end, "MANUAL")
        elif on_existing is not OnExisting.KEEP:
            membership.cause = "MANUAL"
            extends = on_existing is OnExisting.EXTEND
            if extends and (membership.end is None or end is None):
                membership.end = None
            elif not extends or membership.end is None or end is None or end > membership.end:
                membership.end = end

    def remove(self, user_id: int, now: LogicalTime) -> None:
        self.excluded.add(user_id)
        self.leave(user_id, now, "MANUAL")

    def leave(self, user_id: int, now: LogicalTime, cause: str) -> None:
        if membership := self.member(user_id, now):
            membership.end, membership.end_cause = now, cause

    # --- The rollout -----------------------------------------------------------------------------

    def set_plan(
        self,
        now: LogicalTime,
        stages: Sequence[tuple[Decimal, LogicalTime]],
        enroll_new_users: bool,  # noqa: FBT001 - as in the plan
        expires: LogicalTime | None,
    ) -> None:
        before = self.rollout
        max_percent = (
            max(before.max_percent, before.percent_in_force(now)) if before else Decimal(0)
        )
        self.rollout = Rollout(stages, enroll_new_users, expires, max_percent, stage=0)
        if stages[0][1] > now and max_percent == 0:
            self.rollout.phase, self.rollout.pass_stage = "DONE", 0
        self.rollout.apply_time(now)

    def pause(self, now: LogicalTime) -> bool:
        rollout = self.rollout
        if rollout is None or rollout.status(now) not in {"SCHEDULED", "RUNNING", "WAITING"}:
            return False
        rollout.state, rollout.paused_at = "PAUSED", now
        return True

    def resume(self, now: LogicalTime) -> bool:
        rollout = self.rollout
        if rollout is None or rollout.state != "PAUSED" or rollout.paused_at is None:
            return False
        paused_at = rollout.paused_at
        rollout.stages = [
            (percent, start if start <= paused_at else (start[0] + now[0] - paused_at[0], start[1]))
            for percent, start in rollout.stages
        ]
        rollout.state, rollout.paused_at = "ACTIVE", None
        return True

    def cancel(self, now: LogicalTime, *, withdraw: bool) -> bool:
        rollout = self.rollout
        if rollout is None or rollout.state in {"CANCELLED", "WITHDRAWING"}:
            return False
        if withdraw:
            rollout.max_percent = max(rollout.max_percent, rollout.percent_in_force(now))
            rollout.state, rollout.withdrawn, rollout.phase = "WITHDRAWING", True, "DUE"
        else:
            rollout.state = "CANCELLED"
        rollout.paused_at = rollout.paused_at or now  # a paused schedule stays frozen
        return True

    def step(self, now: LogicalTime, users: dict[int, int]) -> bool:
        """Run one step of a worker; return whether one was due."""
        rollout = self.rollout
        if rollout is None or not rollout.work_due(now):
            return False
        current = rollout.current(now)
        if rollout.phase == "DUE" or (rollout.state == "ACTIVE" and current > rollout.pass_stage):
            rollout.phase, rollout.pass_stage = "SAMPLING", current
            rollout.pass_percent = rollout.percent_in_force(now)
            rollout.removes_members = rollout.pass_percent <= rollout.max_percent
        elif rollout.phase == "SAMPLING":
            rollout.phase, rollout.pass_users = "WORKING", dict(users)
            rollout.sample = expected_sample(self.segment_id, users, rollout.pass_percent)
        else:
            self._work(now, rollout, users)
            rollout.phase = "DONE"
            if rollout.removes_members:
                rollout.max_percent = rollout.pass_percent
            if rollout.state == "WITHDRAWING":
                rollout.state = "CANCELLED"
        return True

    def _work(self, now: LogicalTime, rollout: Rollout, users: dict[int, int]) -> None:
        for user_id in sorted(users):
            membership = self.member(user_id, now)
            in_sample = user_id in rollout.sample
            if rollout.pass_percent and users[user_id] != rollout.pass_users.get(user_id):
                continue  # stored later
            if membership is None:
                if in_sample and user_id not in self.excluded and not rollout.expired(now):
                    self.join(user_id, now, rollout.expires, "ROLLOUT")
            elif membership.cause == "ROLLOUT" and not in_sample and rollout.removes_members:
                self.leave(user_id, now, "ROLLOUT")
            elif membership.cause == "ROLLOUT":
                membership.end = rollout.expires and max(rollout.expires, now)


@dataclass
class Model:
    """All users and segments. The test advances `now`."""

    segments: dict[str, Segment]
    now: LogicalTime = (0, 0)
    users: dict[int, int] = field(default_factory=dict)
    arrivals: int = 0

    def store(self, user_ids: Iterable[int], *, with_database: Collection[str] = ()) -> None:
        for user_id in user_ids:
            if user_id not in self.users:
                self.arrivals += 1
                self.users[user_id] = self.arrivals
                for slug, segment in self.segments.items():
                    if slug not in with_database:
                        segment.insert_user(user_id, self.now)

    def delete(self, user_id: int) -> bool:
        if self.users.pop(user_id, None) is None:
            return False
        for segment in self.segments.values():
            segment.leave(user_id, self.now, "USER_DELETED")
            segment.excluded.discard(user_id)
        return True

    def wait(self, seconds: int) -> None:
        self.now = (self.now[0] + seconds, self.now[1])
        for segment in self.segments.values():
            if segment.rollout:
                segment.rollout.apply_time(self.now)
