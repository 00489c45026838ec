"""The row of a worker's peak memory at two data sizes."""

from collections.abc import Sequence
from typing import Final

from bench.table import Row

MAX_MEMORY_MB: Final = 150
SIZE_FACTOR: Final = 10
"""The large data set as a multiple of the small one."""


def memory_row(work: str, unit: str, rows: int, peaks_mb: Sequence[float | None]) -> Row:
    """Return the row of the peak memory of two workers, each of which does one piece of work.

    Args:
        work: The kind of work.
        unit: What is counted in `rows`.
        rows: The size of the larger work.
        peaks_mb: The peak memory at a tenth of the rows and at all rows. None: unknown.
    """
    name = f"peak memory of the worker, {work} of {rows:,} {unit}"
    small, large = peaks_mb
    if small is None or large is None:
        return Row(name=name, ours="", max_value=MAX_MEMORY_MB, skip_reason="no /proc")
    return Row(
        name=name,
        ours=f"{large:.0f} MB",
        compared=f"{rows // SIZE_FACTOR:,} {unit}: {small:.0f} MB",
        value=large,
        unit="MB",
        max_value=MAX_MEMORY_MB,
        details={"small_mb": small, "large_mb": large},
    )
