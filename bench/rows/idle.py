"""Measures the CPU time of an idle `segmentql up`, per process and minute."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from bench.cpu import cpu_seconds, is_supported
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
    if not is_supported():
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
