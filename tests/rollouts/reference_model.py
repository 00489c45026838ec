"""What rollouts ought to do, in plain Python: it knows rules and clocks, no tables nor chunks."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias

from segmentql.memberships.service import OnExisting
from tests.rollouts.helpers import in_range, sample_of

Moment: TypeAlias = tuple[int, int]
"""The seconds that were waited, and the number of the operation."""


@dataclass
class Stay:
    """One membership from its join on; `end` is where it ends unless something changes it."""

    user_id: int
    start: Moment
    end: Moment | None
    joined_by: str
    """The cause of the join; `cause` is whose the membership is now."""
    cause: str
    end_cause: str = "TTL"


@dataclass
class Rollout:
    """A plan, and the pass under way."""

    stages: Sequence[tuple[Decimal, Moment]]
    enrolls: bool
    expires: Moment | None
    highest: Decimal
    """What somebody may be in for of before the percent that is in force now."""
    stage: int
    """Whose percent `highest` does not count yet: the one in force, 0 before the first."""
    state: str = "ACTIVE"
    held: Moment | None = None
    withdrawn: bool = False
    phase: str = "DUE"
    pass_stage: int = -1
    goal: Decimal = Decimal(0)
    takes_out: bool = False
    stored: dict[int, int] = field(default_factory=dict)
    """The users of the pass, with their arrivals."""
    sample: set[int] = field(default_factory=set)

    def current(self, now: Moment) -> int:
        clock = self.held or now
        return sum(start <= clock for _, start in self.stages)

    def in_force(self, now: Moment) -> Decimal:
        current = self.current(now)
        return self.stages[current - 1][0] if current and not self.withdrawn else Decimal(0)

    def expired(self, now: Moment) -> bool:
        return self.expires is not None and self.expires <= now

    def time_came(self, now: Moment) -> None:
        """Note every percent that was in force for a while, worker or not."""
        while self.stage < self.current(now):
            if self.stage:
                self.highest = max(self.highest, self.stages[self.stage - 1][0])
            self.stage += 1

    def work_due(self, now: Moment) -> bool:
        return self.state == "WITHDRAWING" or (
            self.state == "ACTIVE"
            and (
                self.phase != "DONE"
                or (self.current(now) > self.pass_stage and not self.expired(now))
            )
        )

    def status(self, now: Moment) -> str:
        if self.state != "ACTIVE":
            return self.state
        if self.work_due(now):
            return "RUNNING"
        if self.expired(now) or self.current(now) == len(self.stages):
            return "COMPLETED"
        return "WAITING" if self.current(now) else "SCHEDULED"


@dataclass
class Segment:
    number: int
    stays: list[Stay] = field(default_factory=list)
    excluded: set[int] = field(default_factory=set)
    rollout: Rollout | None = None

    def member(self, user_id: int, now: Moment) -> Stay | None:
        found = [stay for stay in self.active(now) if stay.user_id == user_id]
        return found[0] if found else None

    def active(self, now: Moment) -> list[Stay]:
        return [stay for stay in self.stays if stay.end is None or stay.end > now]

    def entries(self, user_id: int, now: Moment) -> list[tuple[str, str]]:
        """What history ought to have of a user, as (operation, cause)."""
        told: list[tuple[str, str]] = []
        for stay in self.stays:
            if stay.user_id == user_id:
                told.append(("JOINED", stay.joined_by))
                if stay.end is not None and stay.end <= now:
                    told.append(("LEFT", stay.end_cause))
        return told

    def join(self, user_id: int, now: Moment, end: Moment | None, cause: str) -> None:
        self.stays.append(Stay(user_id, now, end, cause, cause))

    def stored(self, user_id: int, now: Moment) -> None:
        """Somebody stored a user, and did not name this segment."""
        rollout = self.rollout
        if (
            rollout is not None
            and rollout.enrolls
            and rollout.state in {"ACTIVE", "PAUSED"}
            and not rollout.expired(now)
            and in_range(self.number, user_id, rollout.in_force(now))
        ):
            self.join(user_id, now, rollout.expires, "ROLLOUT")

    def add(self, user_id: int, now: Moment, end: Moment | None, on_existing: OnExisting) -> None:
        self.excluded.discard(user_id)
        there = self.member(user_id, now)
        if there is None:
            self.join(user_id, now, end, "MANUAL")
        elif on_existing is not OnExisting.KEEP:
            there.cause = "MANUAL"
            extends = on_existing is OnExisting.EXTEND
            if extends and (there.end is None or end is None):
                there.end = None
            elif not extends or there.end is None or end is None or end > there.end:
                there.end = end

    def remove(self, user_id: int, now: Moment) -> None:
        self.excluded.add(user_id)
        self.leave(user_id, now, "MANUAL")

    def leave(self, user_id: int, now: Moment, cause: str) -> None:
        if there := self.member(user_id, now):
            there.end, there.end_cause = now, cause

    # --- The rollout -----------------------------------------------------------------------------

    def set_plan(
        self,
        now: Moment,
        stages: Sequence[tuple[Decimal, Moment]],
        enrolls: bool,  # noqa: FBT001 - as the plan has it
        expires: Moment | None,
    ) -> None:
        before = self.rollout
        highest = max(before.highest, before.in_force(now)) if before else Decimal(0)
        self.rollout = Rollout(stages, enrolls, expires, highest, stage=0)
        if stages[0][1] > now and highest == 0:
            self.rollout.phase, self.rollout.pass_stage = "DONE", 0
        self.rollout.time_came(now)

    def pause(self, now: Moment) -> bool:
        rollout = self.rollout
        if rollout is None or rollout.status(now) not in {"SCHEDULED", "RUNNING", "WAITING"}:
            return False
        rollout.state, rollout.held = "PAUSED", now
        return True

    def resume(self, now: Moment) -> bool:
        rollout = self.rollout
        if rollout is None or rollout.state != "PAUSED" or rollout.held is None:
            return False
        held = rollout.held
        rollout.stages = [
            (percent, start if start <= held else (start[0] + now[0] - held[0], start[1]))
            for percent, start in rollout.stages
        ]
        rollout.state, rollout.held = "ACTIVE", None
        return True

    def cancel(self, now: Moment, *, withdraw: bool) -> bool:
        rollout = self.rollout
        if rollout is None or rollout.state in {"CANCELLED", "WITHDRAWING"}:
            return False
        if withdraw:
            rollout.highest = max(rollout.highest, rollout.in_force(now))
            rollout.state, rollout.withdrawn, rollout.phase = "WITHDRAWING", True, "DUE"
        else:
            rollout.state = "CANCELLED"
        rollout.held = now
        return True

    def step(self, now: Moment, users: dict[int, int]) -> bool:
        """What one step of a worker does; whether there was one to do."""
        rollout = self.rollout
        if rollout is None or not rollout.work_due(now):
            return False
        current = rollout.current(now)
        if rollout.phase == "DUE" or (rollout.state == "ACTIVE" and current > rollout.pass_stage):
            rollout.phase, rollout.pass_stage = "SAMPLING", current
            rollout.goal = rollout.in_force(now)
            rollout.takes_out = rollout.goal <= rollout.highest
        elif rollout.phase == "SAMPLING":
            rollout.phase, rollout.stored = "WORKING", dict(users)
            rollout.sample = sample_of(self.number, users, rollout.goal)
        else:
            self._work(now, rollout, users)
            rollout.phase = "DONE"
            if rollout.takes_out:
                rollout.highest = rollout.goal
            if rollout.state == "WITHDRAWING":
                rollout.state = "CANCELLED"
        return True

    def _work(self, now: Moment, rollout: Rollout, users: dict[int, int]) -> None:
        for user_id in sorted(users):
            there = self.member(user_id, now)
            in_sample = user_id in rollout.sample
            if rollout.goal and users[user_id] != rollout.stored.get(user_id):
                continue  # stored later
            if there is None:
                if in_sample and user_id not in self.excluded and not rollout.expired(now):
                    self.join(user_id, now, rollout.expires, "ROLLOUT")
            elif there.cause == "ROLLOUT" and not in_sample and rollout.takes_out:
                self.leave(user_id, now, "ROLLOUT")
            elif there.cause == "ROLLOUT":
                there.end = rollout.expires and max(rollout.expires, now)


@dataclass
class Model:
    """Users and segments; `now` is moved by the test."""

    segments: dict[str, Segment]
    now: Moment = (0, 0)
    users: dict[int, int] = field(default_factory=dict)
    arrivals: int = 0

    def store(self, user_ids: Iterable[int], *, named: Collection[str] = ()) -> None:
        for user_id in user_ids:
            if user_id not in self.users:
                self.arrivals += 1
                self.users[user_id] = self.arrivals
                for slug, segment in self.segments.items():
                    if slug not in named:
                        segment.stored(user_id, self.now)

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
                segment.rollout.time_came(self.now)
