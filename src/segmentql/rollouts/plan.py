"""The plan of a rollout: its stages, its expiry, and the rules for both."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from segmentql.errors import InvalidInput, MutationRejected
from segmentql.validators import MAX_TTL_SECONDS, TTL_ALLOWED

MAX_START_OFFSET: Final = timedelta(seconds=MAX_TTL_SECONDS)
ALLOWED_START: Final = f"at most {MAX_TTL_SECONDS} seconds before or after now"


@dataclass(frozen=True)
class Stage:
    """One step of a plan: a percentage of all users, and when it comes into force.

    A stage has either `starts_at` or `after`. The first stage may have neither: it starts now.
    """

    percent: Decimal
    starts_at: datetime | None = None
    after: timedelta | None = None


@dataclass(frozen=True)
class Plan:
    """A requested rollout, not yet checked. `schedule` checks the times of the stages."""

    stages: Sequence[Stage]
    enroll_new_users: bool = True
    expires_at: datetime | None = None


def schedule(plan: Plan, now: datetime) -> list[datetime]:
    """Return when each stage starts, if the plan is set `now`.

    Raises:
        MutationRejected: a stage is out of order or out of range, or the expiry is not after the
            last stage.
    """
    reasons: list[InvalidInput] = []
    start_times: list[datetime] = []
    for position, stage in enumerate(plan.stages):
        previous = start_times[-1] if start_times else now
        try:
            start = stage.starts_at or previous + (stage.after or timedelta(0))
        except OverflowError:  # after the year 9999
            start = datetime.max.replace(tzinfo=now.tzinfo)
        field = "startsAt" if stage.starts_at else "afterSeconds"
        path = ("rollout", "stages", str(position), field)
        if start_times and start <= previous:
            reasons.append(
                InvalidInput(
                    path,
                    "the stage does not start after the previous stage",
                    "a time after the start of the previous stage",
                )
            )
        elif not now - MAX_START_OFFSET <= start <= now + MAX_START_OFFSET:
            reasons.append(InvalidInput(path, "the start is out of range", ALLOWED_START))
        start_times.append(start)
    if plan.expires_at is not None:
        reasons += _check_expiry(plan.expires_at, now, start_times)
    if reasons:
        raise MutationRejected(*reasons)
    return start_times


def _check_expiry(
    expires_at: datetime, now: datetime, start_times: Sequence[datetime]
) -> list[InvalidInput]:
    path = ("rollout", "expiresAt")
    remaining = expires_at - now
    if not timedelta(seconds=1) <= remaining <= MAX_START_OFFSET:
        problem = f"{remaining.total_seconds():.6f} seconds from now"
        return [InvalidInput(path, problem, TTL_ALLOWED)]
    if expires_at <= max(start_times):
        return [
            InvalidInput(
                path,
                "the last stage does not start before this time",
                "a time after the last stage starts",
            )
        ]
    return []
