"""The processors and the memory that this machine, or this container, has for API processes."""

import os
from pathlib import Path
from typing import Final

BYTES_PER_PROCESS: Final = 1024**3
"""The memory of the machine for each API process.

A process takes 115 MB after its start, and more for large responses. The rest is for
PostgreSQL, Redis, the object store and the worker, which may run on the same machine."""

CGROUP: Final = Path("/sys/fs/cgroup")
"""The folder with the limits of a container, in version 2 of control groups."""


def api_processes(*, maximum: int) -> int:
    """Return the number of API processes for this machine: at least 1, at most `maximum`."""
    return fitting_processes(
        processors=min(available_processors(), processor_limit(CGROUP)),
        memory=min(memory_bytes(), memory_limit(CGROUP)),
        maximum=maximum,
    )


def fitting_processes(*, processors: float, memory: float, maximum: int) -> int:
    """Return the number of processes that fit: one per processor, within the memory.

    Args:
        processors: The number of processors.
        memory: The memory in bytes.
        maximum: The maximum of the result, whose minimum is 1.
    """
    return max(1, int(min(processors, memory / BYTES_PER_PROCESS, maximum)))


def available_processors() -> int:
    """Return the number of processors on which this process may run."""
    affinity = getattr(os, "sched_getaffinity", None)  # only on Linux
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def memory_bytes() -> float:
    """Return the size of the memory in bytes, or infinity if the system does not report it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return float("inf")


def processor_limit(cgroup: Path) -> float:
    """Return the limit of the control group in processors, or infinity."""
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else float("inf")


def memory_limit(cgroup: Path) -> float:
    """Return the limit of the control group in bytes, or infinity."""
    limit = _read(cgroup / "memory.max")
    return int(limit) if limit.isdecimal() else float("inf")


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:  # no container, or no control groups
        return ""
