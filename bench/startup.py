"""How long `segmentql up` takes until it is ready: with nothing there yet, and on what is there."""

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

READY: Final = b"ready after"
START_SECONDS: Final = 120
STOP_SECONDS: Final = 60

NONE_OUTSIDE: Final = dict.fromkeys(
    (
        *("SEGMENTQL_DATABASE_URL", "SEGMENTQL_MIGRATION_DATABASE_URL"),
        *("SEGMENTQL_REDIS_URL", "SEGMENTQL_S3_ENDPOINT_URL", "SEGMENTQL_AUTH"),
    ),
    "",
)


async def measure() -> AsyncIterator[Row]:
    """Start and stop it twice in a new folder; the time includes Python's own start."""
    with tempfile.TemporaryDirectory(prefix="segmentql-bench-") as name:
        home = Path(name)
        home.chmod(0o755)  # root's servers run as another account, which must get in
        for what, at_most in (("from nothing", 15), ("on existing data", 5)):
            seconds = await _start_and_stop(home)
            yield Row(
                what=f"start of `segmentql up` {what}",
                ours=f"{seconds:.1f} s",
                measured=seconds,
                unit="s",
                at_most=at_most,
            )


async def _start_and_stop(home: Path) -> float:
    started = time.monotonic()
    async with up(home):
        return time.monotonic() - started


@contextlib.asynccontextmanager
async def up(home: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `segmentql up` with the data folder `home / "data"`, from its "ready" to its stop."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", "up", "--data-dir", "data"),
        *("--port", str(free_port())),
        cwd=home,
        env=child_environment(NONE_OUTSIDE),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            await _says_ready(process)
        yield process
    finally:
        # Its output is read meanwhile, because a full pipe would block the stop.
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.communicate()
        except TimeoutError:
            process.kill()
            raise


async def _says_ready(process: asyncio.subprocess.Process) -> None:
    said = b""
    if process.stdout is None:
        raise AssertionError
    async for line in process.stdout:
        said += line
        if READY in line:
            return
    raise RuntimeError(f"`segmentql up` ended:\n{said.decode(errors='replace')}")
