"""Small programs that stand in for the servers."""

import os
import sys
from pathlib import Path

from segmentql.local.program import Program
from segmentql.local.supervisor import RestartPolicy
from segmentql.settings import child_environment

QUICK = RestartPolicy(
    initial_delay_seconds=0.01, max_delay_seconds=0.02, full_disk_delay_seconds=0.01
)
SLEEPS = "import time; print('here', flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"


def program(folder: Path, name: str, script: str) -> Program:
    """Return a program that is ready after its first output."""
    log = folder / f"{name}.log"

    async def ready() -> bool:
        return log.stat().st_size > 0

    return Program(
        name=name,
        command=[sys.executable, "-c", script],
        is_ready=ready,
        environment=child_environment({}),
        log_file=log,
        pid_file=folder / f"{name}.pid",
    )


def pid_of(program: Program) -> int:
    return int(program.pid_file.read_text())


async def is_gone(pid: int) -> bool:
    return has_ended(pid)


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")  # an orphan that no process has reaped yet
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"


async def always() -> bool:
    return True


async def never() -> bool:
    return False
