"""The CPU time of processes with their descendants, from /proc."""

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

PROC = Path("/proc")


def is_supported() -> bool:
    """Return whether the system has /proc with the CPU time of processes."""
    return (PROC / "self" / "stat").exists()


def cpu_seconds(roots: Mapping[str, int]) -> dict[str, float]:
    """Return the CPU time of each process with its descendants, except the trees of other roots.

    Args:
        roots: The process ids by name.
    """
    children: dict[int, list[int]] = defaultdict(list)
    ticks: dict[int, int] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # the process has exited
            # The fields follow the last ")" of the name: see proc_pid_stat(5).
            fields = stat.rpartition(")")[2].split()
            children[int(fields[1])].append(int(entry.name))
            ticks[int(entry.name)] = sum(map(int, fields[11:15]))  # including exited children

    def total(pid: int, *, exclude: set[int]) -> int:
        descendants = (
            total(child, exclude=exclude) for child in children[pid] if child not in exclude
        )
        return ticks.get(pid, 0) + sum(descendants)

    pids = set(roots.values())
    hertz = os.sysconf("SC_CLK_TCK")
    return {name: total(pid, exclude=pids) / hertz for name, pid in roots.items()}
