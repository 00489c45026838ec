"""Fixtures for tests of commands."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.adapters.storage import Storage
from segmentql.imports.actors import ImportContext
from segmentql.settings import Settings
from tests.cli.api_process import CommandResult, RunImport, listening, run_command
from tests.cli.rollout_watch_process import RunWatch, WatchProcess
from tests.conftest import Api, environment
from tests.imports.lists import Imports
from tests.operations import make_segments

IMPORTS: Final = "{ imports(first: 100) { nodes { id } } }"


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


@pytest.fixture(scope="session")
async def session_address(served: Api) -> AsyncIterator[str]:
    """Serve the application of this test run on a port."""
    transport: Any = served.http._transport
    async with listening(transport.app) as address:
        yield address


@pytest.fixture
async def address(api: Api, session_address: str, s3: object) -> str:
    """Return the address of the application, with empty tables."""
    return session_address


@pytest.fixture
async def import_worker(
    api: Api, database: Database, storage: Storage, sent: list[Message]
) -> AsyncIterator[None]:
    """Carry out imports in this process, as a worker does."""
    context = ImportContext.create(database, storage, retention_days=30, worker_threads=4)
    imports = Imports(api, context, sent)

    async def work() -> None:
        while True:
            for record in (await api(IMPORTS))["imports"]["nodes"]:
                await imports.work(record["id"])
            await asyncio.sleep(0.02)

    # Otherwise the worker would log to the standard output of the command.
    with capture_logs():
        task = asyncio.create_task(work())
        yield
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.fixture
async def import_list(address: str, api: Api, tmp_path: Path) -> RunImport:
    """Return a function that imports a list into the segment `a`."""
    await make_segments(api, "a")

    async def run_import(data: bytes, *options: str) -> CommandResult:
        path = tmp_path / "list.csv"
        path.write_bytes(data)
        return await run_command(
            "import", str(path), "--segment", "a", *options, SEGMENTQL_URL=address
        )

    return run_import
