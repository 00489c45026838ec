"""Fixtures for tests of commands."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from segmentql.settings import Settings
from tests.cli.rollout_watch_process import RunWatch, WatchProcess
from tests.conftest import environment


@pytest.fixture
def watch(settings: Settings, tmp_path: Path) -> RunWatch:
    """Return a context manager that runs `segmentql rollout watch`."""

    @asynccontextmanager
    async def run_watch(slug: str, **changes: str) -> AsyncIterator[WatchProcess]:
        output, errors = tmp_path / "output", tmp_path / "errors"
        # Background jobs ignore SIGINT, and their child processes would inherit that.
        previous = signal.signal(signal.SIGINT, signal.default_int_handler)
        with output.open("wb") as stdout, errors.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "segmentql", "rollout", "watch", slug),
                cwd=tmp_path,
                env=environment(settings, **changes),
                stdout=stdout,
                stderr=stderr,
            )
        signal.signal(signal.SIGINT, previous)
        try:
            yield WatchProcess(process, output, errors)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    return run_watch
