"""A running `segmentql report`."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import IO, TypeAlias

from segmentql.settings import Settings
from tests.conftest import PATIENCE_SECONDS, Sql, environment, until

COPYING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%' AND state = 'active'"

Start: TypeAlias = Callable[..., AbstractAsyncContextManager[asyncio.subprocess.Process]]


@asynccontextmanager
async def report_command(
    settings: Settings,
    folder: Path,
    *arguments: str,
    stdout: int | IO[bytes] = asyncio.subprocess.PIPE,
    **changes: str,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `segmentql report` in a folder."""
    # If tests run in the background, they and their children ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", "report", *arguments),
        cwd=folder,
        env=environment(settings, **changes),
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
    )
    signal.signal(signal.SIGINT, before)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def wait_for_exit(process: asyncio.subprocess.Process) -> tuple[int, bytes, str]:
    """Wait until the process ends; return its exit status and its output."""
    stdout, stderr = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert process.returncode is not None
    return process.returncode, stdout, stderr.decode()


@asynccontextmanager
async def running_report(
    start: Start, sql: Sql, folder: Path
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Yield a running report into march.csv, and the descriptor that reads what it has written."""
    # The report writes to this name until the file is complete. A pipe stands for a file that
    # accepts no more data until it is read.
    os.mkfifo(folder / "march.csv.part")
    async with start("--month", "2024-03", "-o", "march.csv") as process:
        reader = await asyncio.to_thread(os.open, folder / "march.csv.part", os.O_RDONLY)
        await until(lambda: sql.fetchval(COPYING))
        yield process, reader


def read_to_end(reader: int) -> None:
    with os.fdopen(reader, "rb") as file:
        file.read()
