"""`segmentql up` as a process that a user starts."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from segmentql.local.ports import free_port
from segmentql.settings import child_environment
from tests.conftest import until, without_cost

NONE_OUTSIDE = dict.fromkeys(
    (
        *("SEGMENTQL_DATABASE_URL", "SEGMENTQL_MIGRATION_DATABASE_URL"),
        *("SEGMENTQL_REDIS_URL", "SEGMENTQL_S3_ENDPOINT_URL", "SEGMENTQL_AUTH"),
    ),
    "",
)
READY_SECONDS = 120  # a limit for slow machines; the documented time is measured elsewhere


class Up:
    """A running `segmentql up`."""

    def __init__(self, home: Path, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.data = home / "data"
        self.port = port
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        return self._log.read_text()

    def pid_of(self, name: str) -> int | None:
        file = self.data / "run" / f"{name}.pid"
        return int(file.read_text().split()[0]) if file.exists() else None

    async def wait_for_output(self, text: str, *, times: int = 1) -> None:
        """Wait until its output has a text; fail at once if it ends instead."""

        async def has_printed() -> bool:
            if self.output.count(text) >= times:
                return True
            assert self.process.poll() is None, self.output
            return False

        await until(has_printed, seconds=READY_SECONDS)

    async def wait_for_exit(self) -> int:
        async def has_ended() -> bool:
            return self.process.poll() is not None

        await until(has_ended, seconds=READY_SECONDS)
        return self.process.returncode

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await self.wait_for_exit()

    async def send(self, body: str, **headers: str) -> str:
        async with httpx.AsyncClient(timeout=30) as client:
            response = await client.post(
                f"http://127.0.0.1:{self.port}/graphql",
                content=body,
                headers={"content-type": "application/json", **headers},
            )
        return response.text

    async def send_operation(self, body: str) -> Any:
        """Return the response body without the cost."""
        return without_cost(json.loads(await self.send(body)))


@asynccontextmanager
async def running(
    home: Path, *options: str, port: int | None = None, **environment: str
) -> AsyncIterator[Up]:
    """Start `segmentql up`, and stop it if it still runs at the end."""
    up = launch(home, options, port or free_port(), environment)
    try:
        yield up
    finally:
        if up.process.poll() is None:
            await up.stop()


def launch(home: Path, options: Sequence[str], port: int, environment: Mapping[str, str]) -> Up:
    log = home / f"up-{time.monotonic_ns()}.log"
    own = ["--data-dir", "data", "--port", str(port)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "segmentql", "up", *own, *options],
            cwd=home,
            env=child_environment({**NONE_OUTSIDE, **environment}),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return Up(home, port, process, log)


async def nothing_runs(home: Path) -> bool:
    return processes_of(home) == []


def processes_of(home: Path) -> list[str]:
    """Return the living processes that were started for a folder, or work in it."""
    processes = []
    for process in Path("/proc").iterdir():
        try:
            traces = [
                (process / "cmdline").read_bytes(),
                (process / "environ").read_bytes(),
                bytes((process / "cwd").readlink()),
            ]
        except OSError:
            continue
        if any(bytes(home) in trace for trace in traces):
            processes.append(f"{process.name} {traces[0]!r}")
    return processes
