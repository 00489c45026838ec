"""Measures the start of `segmentql up` with a new data folder and with an existing one."""

import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from bench.table import Row
from segmentql.local.ports import free_port
from segmentql.settings import child_environment

READY_LINE: Final = b"ready after"
START_TIMEOUT_SECONDS: Final = 120
STOP_TIMEOUT_SECONDS: Final = 60

NO_EXTERNAL_SERVICES: Final = dict.fromkeys(
    (
        *("SEGMENTQL_DATABASE_URL", "SEGMENTQL_MIGRATION_DATABASE_URL"),
        *("SEGMENTQL_REDIS_URL", "SEGMENTQL_S3_ENDPOINT_URL", "SEGMENTQL_AUTH"),
    ),
    "",
)


async def measure() -> AsyncIterator[Row]:
    """Start `segmentql up` twice in a new folder. The time includes the start of Python."""
    with tempfile.TemporaryDirectory(prefix="segmentql-bench-") as name:
        home = Path(name)
        home.chmod(0o755)  # the servers of root run as another account
        for data, max_seconds in (("without data", 15), ("with existing data", 5)):
            seconds = await _start_and_stop(home)
            yield Row(
                name=f"start of `segmentql up` {data}",
                ours=f"{seconds:.1f} s",
                value=seconds,
                unit="s",
                max_value=max_seconds,
            )


async def _start_and_stop(home: Path) -> float:
    started = time.monotonic()
    async with running_up(home):
        return time.monotonic() - started


@contextlib.asynccontextmanager
async def running_up(home: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `segmentql up` with the data folder `home / "data"`. It is ready at the entry."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", "up", "--data-dir", "data"),
        *("--port", str(free_port())),
        cwd=home,
        env=child_environment(NO_EXTERNAL_SERVICES),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(START_TIMEOUT_SECONDS):
            await _wait_until_ready(process)
        yield process
    finally:
        # `communicate` reads the output, because a full pipe would block the stop.
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_SECONDS):
                await process.communicate()
        except TimeoutError:
            process.kill()
            raise


async def _wait_until_ready(process: asyncio.subprocess.Process) -> None:
    output = b""
    if process.stdout is None:
        raise AssertionError
    async for line in process.stdout:
        output += line
        if READY_LINE in line:
            return
    raise RuntimeError(f"`segmentql up` exited:\n{output.decode(errors='replace')}")
