"""What a rollout's plan may be, and when its stages start."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from segmentql.errors import InvalidInput, Refused
from segmentql.values import MAX_TTL_SECONDS, TTL_ALLOWED

SPAN: Final = timedelta(seconds=MAX_TTL_SECONDS)
START_ALLOWED: Final = f"within {MAX_TTL_SECONDS} seconds of now, before or after"


@dataclass(frozen=True)
class Stage:
    """From some moment on, this percent of all users is in.

    `starts_at` or `after`, not both; neither only in a plan's first stage, which then starts now.
    """

    percent: Decimal
    starts_at: datetime | None = None
    after: timedelta | None = None


@dataclass(frozen=True)
class Plan:
    """What an analyst asks for; `stages` are in order of time, at least one."""

    stages: Sequence[Stage]
    enroll_new_users: bool = True
    expires_at: datetime | None = None


def starts(plan: Plan, now: datetime) -> list[datetime]:
    """When each stage starts, if the plan is made `now`; each after the one before.

    Raises:
        Refused: a stage out of order or out of range, or an end not after the last stage.
    """
    refusals: list[InvalidInput] = []
    found: list[datetime] = []
    for position, stage in enumerate(plan.stages):
        before = found[-1] if found else now
        try:
            start = stage.starts_at or before + (stage.after or timedelta(0))
        except OverflowError:  # past the year 9999
            start = datetime.max.replace(tzinfo=now.tzinfo)
        field = "startsAt" if stage.starts_at else "afterSeconds"
        path = ("rollout", "stages", str(position), field)
        if found and start <= before:
            refusals.append(
                InvalidInput(path, "it is not later than the stage before", "a later moment")
            )
        elif not now - SPAN <= start <= now + SPAN:
            refusals.append(InvalidInput(path, "it is out of range", START_ALLOWED))
        found.append(start)
    if plan.expires_at is not None:
        refusals += _wrong_with_end(plan.expires_at, now, found)
    if refusals:
        raise Refused(*refusals)
    return found


def _wrong_with_end(end: datetime, now: datetime, starts: Sequence[datetime]) -> list[InvalidInput]:
    path = ("rollout", "expiresAt")
    remaining = end - now
    if not timedelta(seconds=1) <= remaining <= SPAN:
        problem = f"{remaining.total_seconds():.6f} seconds from now"
        return [InvalidInput(path, problem, TTL_ALLOWED)]
    if end <= max(starts):
        return [InvalidInput(path, "the last stage starts no earlier", "after the last stage")]
    return []
