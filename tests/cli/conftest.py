"""Commands that run until they are done, or stopped."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from segmentql.settings import Settings
from tests.cli.watcher import Watch, Watcher
from tests.conftest import environment


@pytest.fixture
def watch(settings: Settings, tmp_path: Path) -> Watch:
    """Starts `segmentql rollout watch` on a segment."""

    @asynccontextmanager
    async def running(slug: str, **changes: str) -> AsyncIterator[Watcher]:
        output, errors = tmp_path / "output", tmp_path / "errors"
        # Where tests run in the background they ignore Ctrl-C, and what they start would too.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        with output.open("wb") as stdout, errors.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "segmentql", "rollout", "watch", slug),
                cwd=tmp_path,
                env=environment(settings, **changes),
                stdout=stdout,
                stderr=stderr,
            )
        signal.signal(signal.SIGINT, before)
        try:
            yield Watcher(process, output, errors)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    return running
