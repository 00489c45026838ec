"""Measures the CPU time of an idle `segmentql up`, per process and minute."""

import asyncio
import os
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from bench.plan import Benchmark
from bench.startup import running_up
from bench.table import Row

PID_FILES: Final = {
    "API": "api",
    "worker": "worker",
    "Redis": "redis",
    "PostgreSQL": "postgresql",
    "store": "store",
}
"""The PID files of the child processes of `segmentql up`, without `.pid`."""

SUPERVISOR: Final = "supervisor"
POLLING_PROCESSES: Final = ("worker", "Redis", SUPERVISOR)
"""The processes to which the target applies. Only polling by SegmentQL uses their CPU time."""

MAX_CPU_SECONDS: Final = 1.2
"""The target in CPU seconds per minute: 2 % of a core."""


async def measure(bench: Benchmark) -> AsyncIterator[Row]:
    name = f"CPU of an idle `segmentql up` per minute: {', '.join(POLLING_PROCESSES)}"
    if not Path("/proc/self/stat").exists():
        yield Row(name=name, ours="", unit="s", skip_reason="no /proc")
        return
    bench.print_line("an idle `segmentql up`")
    seconds = bench.plan.idle_seconds
    with tempfile.TemporaryDirectory(prefix="segmentql-bench-") as folder:
        home = Path(folder)
        home.chmod(0o755)  # the servers of root run as another account
        async with running_up(home) as process:
            roots = {SUPERVISOR: process.pid, **_read_pids(home / "data" / "run")}
            await asyncio.sleep(bench.plan.idle_delay_seconds)
            before = cpu_seconds(roots)
            await asyncio.sleep(seconds)
            after = cpu_seconds(roots)
    used = {name: (after[name] - before[name]) * 60 / seconds for name in roots}
    yield Row(
        name=name,
        ours=", ".join(f"{name} {used[name]:.2f} s" for name in POLLING_PROCESSES),
        compared=", ".join(
            f"{name} {used[name]:.2f} s" for name in used if name not in POLLING_PROCESSES
        ),
        value=sum(used[name] for name in POLLING_PROCESSES),
        unit="s",
        max_value=MAX_CPU_SECONDS,
        details={"cpu_seconds_per_minute": used, "measured_seconds": seconds},
    )


def _read_pids(run_folder: Path) -> dict[str, int]:
    return {name: int((run_folder / f"{file}.pid").read_text()) for name, file in PID_FILES.items()}


def cpu_seconds(roots: Mapping[str, int]) -> dict[str, float]:
    """Return the CPU time of each process with its descendants, except the trees of other roots.

    Args:
        roots: The process ids by name.
    """
    children: dict[int, list[int]] = defaultdict(list)
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
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
