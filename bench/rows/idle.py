"""What an idle `segmentql up` costs: CPU seconds a minute, by process."""

import asyncio
import os
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from bench.plan import Bench
from bench.startup import up
from bench.table import Row

PID_FILES: Final = {
    "API": "api",
    "worker": "worker",
    "Redis": "redis",
    "PostgreSQL": "postgresql",
    "store": "store",
}
"""The names of the files, without `.pid`, in which `segmentql up` keeps the ids of its children."""

SUPERVISOR: Final = "supervisor"
OURS: Final = ("worker", "Redis", SUPERVISOR)
"""What the target holds for: nothing but our own polling keeps these busy."""

MAX_CPU_SECONDS: Final = 1.2
"""A minute: 2 % of a core."""


async def measure(bench: Bench) -> AsyncIterator[Row]:
    what = f"CPU of an idle `segmentql up`: {', '.join(OURS)}"
    if not Path("/proc/self/stat").exists():
        yield Row(what=what, ours="", unit="s a minute", skipped="no /proc")
        return
    bench.say("an idle `segmentql up`")
    seconds = bench.plan.idle_seconds
    with tempfile.TemporaryDirectory(prefix="segmentql-bench-") as name:
        home = Path(name)
        home.chmod(0o755)  # root's servers run as another account, which must get in
        async with up(home) as process:
            heads = {SUPERVISOR: process.pid, **_children(home / "data" / "run")}
            await asyncio.sleep(bench.plan.idle_after_seconds)
            before = cpu_seconds(heads)
            await asyncio.sleep(seconds)
            after = cpu_seconds(heads)
    used = {name: (after[name] - before[name]) * 60 / seconds for name in heads}
    yield Row(
        what=what,
        ours=", ".join(f"{name} {used[name]:.2f} s" for name in OURS),
        compared=", ".join(f"{name} {used[name]:.2f} s" for name in used if name not in OURS),
        measured=sum(used[name] for name in OURS),
        unit="s a minute",
        at_most=MAX_CPU_SECONDS,
        details={"cpu_seconds_a_minute": used, "measured_seconds": seconds},
    )


def _children(run: Path) -> dict[str, int]:
    return {name: int((run / f"{file}.pid").read_text()) for name, file in PID_FILES.items()}


def cpu_seconds(heads: Mapping[str, int]) -> dict[str, float]:
    """Return the CPU time of each process with its descendants, except other heads' trees."""
    children: dict[int, list[int]] = defaultdict(list)
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
            # After the name, which may contain anything but its last ")": see proc_pid_stat(5).
            fields = stat.rpartition(")")[2].split()
            children[int(fields[1])].append(int(entry.name))
            ticks[int(entry.name)] = sum(map(int, fields[11:15]))  # ended children included

    def total(pid: int, *, but: set[int]) -> int:
        below = (total(child, but=but) for child in children[pid] if child not in but)
        return ticks.get(pid, 0) + sum(below)

    pids = set(heads.values())
    hertz = os.sysconf("SC_CLK_TCK")
    return {name: total(pid, but=pids) / hertz for name, pid in heads.items()}
