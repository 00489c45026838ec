"""How much is measured and for how long, and what every row needs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.data import Sizes
from segmentql.local import LocalServers


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One size of the whole benchmark."""

    main: Sizes
    small: Sizes
    """What reads of the larger data are compared with."""
    large: Sizes | None
    """More than `main`, for the row that asks how reads do as data grow."""
    rollout: Sizes
    """What rollouts work on."""
    rollout_small: Sizes
    """What a worker's memory is compared with."""
    report_rows: int
    """What a report has."""
    slices: int
    slice_seconds: float
    warm_up_seconds: float
    slice_requests: int
    """At most so many in a slice."""
    check_every: int
    """One in so many answers is parsed and compared with what it should be."""
    idle_after_seconds: float
    """How long `segmentql up` has been ready when its idle CPU time is measured ..."""
    idle_seconds: float
    """... and for how long."""
    judges: bool
    """Whether figures mean anything; else only that everything works."""


SMALL: Final = Sizes(users=2_000, memberships=10_000, segments=100)
LARGE: Final = Sizes(users=2_000_000, memberships=10_000_000, segments=100)
ROLLOUT: Final = Sizes(users=1_000_000, memberships=2_000_000, segments=100)
ROLLOUT_SMALL: Final = Sizes(users=100_000, memberships=200_000, segments=100)

SMOKE: Final = Plan(
    main=Sizes(users=400, memberships=2_000, segments=20),
    small=Sizes(users=100, memberships=500, segments=20),
    large=None,
    rollout=Sizes(users=2_000, memberships=4_000, segments=20),
    rollout_small=Sizes(users=200, memberships=400, segments=20),
    report_rows=1_000,
    slices=1,
    # By number, so that the slowest of machines gets there as well.
    slice_seconds=20,
    warm_up_seconds=0,
    slice_requests=24,
    check_every=1,
    idle_after_seconds=0,
    idle_seconds=1,
    judges=False,
)


@dataclass(frozen=True)
class Bench:
    """A run: the servers, the databases that are filled, and where it tells what it does."""

    plan: Plan
    servers: LocalServers
    main: str
    small: str
    large: str | None
    folder: Path
    """The benchmark's own, for files."""
    say: Callable[[str], None]
