"""The data sizes and durations of a benchmark run, and its servers and databases."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.data import Sizes
from segmentql.local import LocalServers


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The data sizes and durations of a benchmark run."""

    main: Sizes
    small: Sizes
    """The small data set, with which reads of the larger ones are compared."""
    large: Sizes | None
    """The large data set for the row `growth`. None: `main`."""
    rollout: Sizes
    """The data set of the rollouts."""
    rollout_small: Sizes
    """The data set of the rollout with which the worker's peak memory is compared."""
    report_rows: int
    """The number of rows of a report."""
    member_count_rows: int
    """The number of rows of history of the segment whose members are counted."""
    slices: int
    """The number of measurements per candidate."""
    slice_seconds: float
    warm_up_seconds: float
    max_slice_requests: int
    """The maximum number of requests per slice."""
    check_every: int
    """The number of responses of which one is parsed and compared with the expected data."""
    idle_delay_seconds: float
    """The delay between the start of `segmentql up` and the measurement of its idle CPU time."""
    idle_seconds: float
    """The duration of that measurement."""
    checks_targets: bool
    """Whether results are compared with the targets. False for a run at toy size."""


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
    member_count_rows=3_000,
    slices=1,
    # The number of requests ends a slice, so that slow machines complete it too.
    slice_seconds=20,
    warm_up_seconds=0,
    max_slice_requests=24,
    check_every=1,
    idle_delay_seconds=0,
    idle_seconds=1,
    checks_targets=False,
)


@dataclass(frozen=True)
class Benchmark:
    """A benchmark run: its plan, its servers and the names of its databases."""

    plan: Plan
    servers: LocalServers
    main: str
    small: str
    large: str | None
    folder: Path
    """The folder for the files of the benchmark."""
    print_line: Callable[[str], None]
