"""What a segment's rollout does with one user, from the facts of an explanation."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from segmentql.explain.facts import Facts, Pass, PlanInForce
from segmentql.explain.records import RolloutPosition
from segmentql.rollouts.sampling import HASH_BITS
from segmentql.tables import RolloutState

HASH_RANGE: Final[int] = 2**HASH_BITS


@dataclass(frozen=True, slots=True)
class RolloutView:
    """A rollout at the time of an explanation, seen from one user."""

    plan: PlanInForce
    at: datetime
    user_hash: int
    user_id: int
    insert_seq: int | None
    """The user's number in order of insertion. None if it is not known."""
    latest_pass: Pass | None
    """The latest pass. None if there is none, or if it is not known."""
    is_pass_known: bool
    """Whether the latest pass is known. A process of an older version did not record its passes."""

    @property
    def stage(self) -> int:
        """The number of the stage in force, from 1; 0 before the first stage."""
        frozen_at = self.plan.paused_at or self.at
        return sum(start <= frozen_at for start in self.plan.start_times)

    @property
    def percent(self) -> Decimal:
        """The percent in force."""
        return self.plan.percents[self.stage - 1] if self.stage else Decimal(0)

    @property
    def is_stopped(self) -> bool:
        """Whether the rollout adds nobody any more: it was cancelled, withdrawn, or has failed."""
        return self.plan.state not in {RolloutState.ACTIVE, RolloutState.PAUSED}

    @property
    def is_paused(self) -> bool:
        return self.plan.state == RolloutState.PAUSED

    @property
    def has_expired(self) -> bool:
        return self.plan.expires_at is not None and self.plan.expires_at <= self.at

    @property
    def stage_pass(self) -> Pass | None:
        """The pass of the stage in force, or None if it has not begun or is not known."""
        latest = self.latest_pass
        if latest is None or latest.is_withdrawal or latest.stage != self.stage:
            return None
        is_of_plan = self.plan.set_at is None or latest.started_at >= self.plan.set_at
        return latest if is_of_plan else None

    @property
    def has_sample(self) -> bool:
        return self.stage_pass is not None and self.stage_pass.sampled_at is not None

    @property
    def is_new_user(self) -> bool:
        """Whether the user was stored after the pass had begun, so that the pass skips the user."""
        last = self.stage_pass.last_insert_seq if self.stage_pass else None
        return last is not None and self.insert_seq is not None and self.insert_seq > last

    @property
    def in_sample(self) -> bool:
        """Whether the user is in the sample, or as a new user in the lowest hashes."""
        stage_pass = self.stage_pass
        if stage_pass is None or stage_pass.bound_hash is None or stage_pass.bound_user_id is None:
            return False
        if self.is_new_user:
            return self.plan.enroll_new_users and self.user_hash < self.percent / 100 * HASH_RANGE
        bound = (stage_pass.bound_hash, stage_pass.bound_user_id)
        return (self.user_hash, self.user_id) <= bound

    @property
    def is_finished(self) -> bool:
        """Whether the pass of the stage in force has finished."""
        return self.stage_pass is not None and self.stage_pass.finished_at is not None

    @property
    def hash_percent(self) -> float:
        """The user's hash as a percentage of the range of hashes."""
        return round(self.user_hash / HASH_RANGE * 100, 6)

    @property
    def position(self) -> RolloutPosition:
        """The user's position, for the API."""
        stage_pass = self.stage_pass
        return RolloutPosition(
            hash=self.user_hash,
            hash_percent=self.hash_percent,
            bound_hash=stage_pass.bound_hash if stage_pass else None,
            in_sample=self.in_sample,
            percent=0.0 if self.is_withdrawn else float(self.percent),
            pass_finished_at=stage_pass.finished_at if stage_pass else None,
        )

    @property
    def is_withdrawn(self) -> bool:
        """Whether the rollout was cancelled with its members, or is removing them."""
        latest = self.latest_pass
        return self.plan.state == RolloutState.WITHDRAWING or (
            self.is_stopped and latest is not None and latest.is_withdrawal
        )


def rollout_view(facts: Facts) -> RolloutView | None:
    """Return the rollout seen from the user; None if there is none or its plan is not known."""
    if facts.plan is None or facts.hash is None or facts.user_id is None:
        return None
    return RolloutView(
        plan=facts.plan,
        at=facts.at,
        user_hash=facts.hash,
        user_id=facts.user_id,
        insert_seq=facts.lifetime.insert_seq if facts.lifetime else None,
        latest_pass=facts.latest_pass,
        is_pass_known=facts.is_latest_pass_known,
    )
