"""The rows of the table: what is measured, in which order.

A row that belongs to a feature to come is a module here and a line in `MEASURED`.
"""

from collections.abc import AsyncIterator, Callable
from typing import Final, TypeAlias

from bench.plan import Bench
from bench.rows import (
    growth,
    hostile,
    idle,
    keys,
    reads,
    reports,
    rollout_chaos,
    rollouts,
    ttl_expiry,
    writes,
)
from bench.table import Row

Measured: TypeAlias = Callable[[Bench], AsyncIterator[Row]]

MEASURED: Final[dict[str, Measured]] = {
    "idle": idle.measure,
    "reads": reads.measure,
    "growth": growth.measure,
    "keys": keys.measure,
    "hostile": hostile.measure,
    "writes": writes.measure,
    "ttl-expiry": ttl_expiry.measure,
    "rollouts": rollouts.measure,
    "reports": reports.measure,
    "rollout-chaos": rollout_chaos.measure,
}
"""By the name that `--only` takes. `startup` comes before them, on a machine that is still idle."""
