"""A signal ends `serve` and `worker` with exit code 0."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest

from segmentql.local.ports import free_port
from segmentql.settings import Settings
from tests.conftest import RunWorker, Sql, environment, until

# Starting a service takes two seconds or more.
pytestmark = pytest.mark.slow


async def _responds(port: int) -> bool:
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(f"http://127.0.0.1:{port}/healthz")).is_success
        except httpx.TransportError:
            return False


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

    try:
        await until(lambda: _responds(port))
    finally:
        process.terminate()
        _, log_output = await process.communicate()
    assert process.returncode == 0, log_output.decode()
    assert b"Traceback" not in log_output


HEAD = (
    b"POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"content-length: 9\r\nexpect: 100-continue\r\n\r\n"
)


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGINT, 2)]
)
async def test_second_signal_ends_serve_before_its_requests(
    settings: Settings, sql: Sql, tmp_path: Path, number: signal.Signals, workers: int
) -> None:
    """A request without its body lasts 30 s, until the time limit of requests.

    All processes get the signal, as from a terminal.
    """
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", "serve", "--port", str(port)),
        *("--workers", str(workers)),
        cwd=tmp_path,
        env=environment(settings),
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await until(lambda: _responds(port))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD)
        assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"  # it reads the body
        os.killpg(process.pid, number)
        with pytest.raises(TimeoutError):  # it waits for the request
            await asyncio.wait_for(process.wait(), 2)
        os.killpg(process.pid, number)
        assert await asyncio.wait_for(process.wait(), 10) == 0
        writer.close()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def test_kill_of_the_managing_process_ends_the_others(
    settings: Settings, sql: Sql, tmp_path: Path
) -> None:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", "serve", "--port", str(port), "--workers", "2"),
        cwd=tmp_path,
        env=environment(settings, SEGMENTQL_DRAIN_SECONDS="60"),
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )

    async def all_have_ended() -> bool:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    try:
        await until(lambda: _responds(port))
        process.kill()
        await process.wait()
        await until(all_have_ended)
    finally:
        if not await all_have_ended():
            os.killpg(process.pid, signal.SIGKILL)
    with socket.create_server(("127.0.0.1", port)):  # a restart can listen on the port
        pass


async def test_sigterm_ends_worker_with_0(run_worker: RunWorker) -> None:
    async with run_worker() as process:
        process.terminate()
        assert await process.wait() == 0
