"""The measurements of the benchmark.

To add one, add a module here and a line to `ROWS`.
"""

from collections.abc import AsyncIterator, Callable
from typing import Final, TypeAlias

from bench.plan import Benchmark
from bench.rows import (
    exports,
    feed,
    growth,
    hostile,
    idle,
    imports,
    keys,
    member_counts,
    pooler,
    reads,
    reports,
    rollout_chaos,
    rollouts,
    ttl_expiry,
    user_keys,
    writes,
)
from bench.table import Row

RowMeasurement: TypeAlias = Callable[[Benchmark], AsyncIterator[Row]]

ROWS: Final[dict[str, RowMeasurement]] = {
    "idle": idle.measure,
    "reads": reads.measure,
    "pooler": pooler.measure,
    "growth": growth.measure,
    "keys": keys.measure,
    "hostile": hostile.measure,
    "user-keys": user_keys.measure,
    "writes": writes.measure,
    "ttl-expiry": ttl_expiry.measure,
    "rollouts": rollouts.measure,
    "reports": reports.measure,
    "imports": imports.measure,
    "exports": exports.measure,
    "feed": feed.measure,
    "member-counts": member_counts.measure,
    "rollout-chaos": rollout_chaos.measure,
}
"""The measurements by their name for `--only`, in the order of the run.

`startup` runs before them, while the machine is idle.
"""
