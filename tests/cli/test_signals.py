"""A signal ends `serve` and `worker` with exit code 0."""

import asyncio
import sys
from pathlib import Path

import httpx
import pytest

from segmentql.local.ports import free_port
from segmentql.settings import Settings
from tests.conftest import RunWorker, Sql, environment, until

# Starting a service takes two seconds or more.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("workers", [1, 2])
async def test_sigterm_ends_serve_with_0(
    settings: Settings, sql: Sql, tmp_path: Path, workers: int
) -> None:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", "serve", "--port", str(port)),
        *("--workers", str(workers)),
        cwd=tmp_path,
        env=environment(settings),
        stderr=asyncio.subprocess.PIPE,
    )

    async def responds() -> bool:
        async with httpx.AsyncClient() as client:
            try:
                return (await client.get(f"http://127.0.0.1:{port}/healthz")).is_success
            except httpx.TransportError:
                return False

    try:
        await until(responds)
    finally:
        process.terminate()
        _, log_output = await process.communicate()
    assert process.returncode == 0, log_output.decode()
    assert b"Traceback" not in log_output


async def test_sigterm_ends_worker_with_0(run_worker: RunWorker) -> None:
    async with run_worker() as process:
        process.terminate()
        assert await process.wait() == 0
