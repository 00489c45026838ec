"""The API as a separate process for end-to-end tests."""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest
from playwright.async_api import Browser

from segmentql.adapters.database import Database
from segmentql.local.ports import free_port
from segmentql.settings import Settings
from tests.conftest import Sql, environment, until
from tests.e2e.browser import open_browser
from tests.e2e.proxies import Proxy
from tests.e2e.up import nothing_runs
from tests.keys.clients import make_key
from tests.timeline import make_segment


@pytest.fixture
async def home() -> AsyncIterator[Path]:
    """Yield a folder for `segmentql up` that every account may enter.

    At the end no process may run in it.
    """
    folder = Path(tempfile.mkdtemp(prefix="segmentql-test-"))
    folder.chmod(0o755)
    yield folder
    await until(lambda: nothing_runs(folder))
    shutil.rmtree(folder)


@dataclass(frozen=True)
class Serving:
    """A running `segmentql serve`."""

    address: str
    process: asyncio.subprocess.Process


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with open_browser() as browser:
        yield browser


@pytest.fixture
async def client(proxy: Proxy, database: Database, sql: Sql) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the proxy with the key of an ADMIN, on empty tables with a segment."""
    key = await make_key(database, "ADMIN")
    await make_segment(sql, "A")
    async with proxy.client(key.token) as client:
        yield client


RunServe: TypeAlias = Callable[..., AbstractAsyncContextManager[Serving]]


@pytest.fixture
async def run_serve(settings: Settings, sql: Sql, tmp_path: Path) -> RunServe:
    """Return a function that starts `segmentql serve` with empty tables.

    `open_files` is the limit of `ulimit -n`. If `port` is None, a free one is used.
    """

    @asynccontextmanager
    async def running(
        *options: str, open_files: int | None = None, port: int | None = None, **changes: str
    ) -> AsyncIterator[Serving]:
        port = port or free_port()
        limited = ("prlimit", f"--nofile={open_files}") if open_files else ()
        with (tmp_path / "serve.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(
                    *limited,
                    sys.executable,
                    "-m",
                    "segmentql",
                    "serve",
                    "--port",
                    str(port),
                    *options,
                ),
                env=environment(settings, **changes),
                stderr=log,
            )
        serving = Serving(f"http://127.0.0.1:{port}", process)
        async with httpx.AsyncClient() as client:

            async def responds() -> bool:
                try:
                    return (await client.get(f"{serving.address}/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            try:
                await until(responds)
                yield serving
            finally:
                if process.returncode is None:
                    process.terminate()
                await process.wait()

    return running


@pytest.fixture
async def serve(run_serve: RunServe) -> AsyncIterator[Serving]:
    """Run `segmentql serve` with empty tables."""
    async with run_serve() as serving:
        yield serving
