"""The measured processes: the API, the worker, and the servers they are compared with."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bench import cpu
from segmentql.adapters.storage import Storage
from segmentql.errors import LocalServerError
from segmentql.local import ChildProcess, LocalServers, Program
from segmentql.local.ports import free_port
from segmentql.local.probes import send_request
from segmentql.settings import Settings, child_environment

INTERNAL_ERROR: Final = 500
REPORTED_CHARACTERS: Final = 2000
"""The length of the part of a log in an error message."""


@dataclass(frozen=True)
class Server:
    """An HTTP server on 127.0.0.1."""

    port: int
    process: ChildProcess

    def cpu_seconds(self) -> float | None:
        """Return the CPU time used so far, or None if the system has no /proc.

        The time includes child processes. Other load on the machine affects the CPU time less than
        the elapsed time.
        """
        if self.process.pid is None or not cpu.is_supported():
            return None
        return cpu.cpu_seconds({"server": self.process.pid})["server"]


@asynccontextmanager
async def run_api(servers: LocalServers, settings: Settings, name: str) -> AsyncIterator[Server]:
    """Run `segmentql serve` with one process."""
    port = free_port()
    async with _running_process(
        servers,
        name,
        [sys.executable, "-m", "segmentql", "serve", "--port", str(port)],
        environment_for(settings),
        partial(_is_ready, port, "GET /readyz"),
    ) as process:
        yield Server(port, process)


@asynccontextmanager
async def run_reference(servers: LocalServers, settings: Settings) -> AsyncIterator[Server]:
    """Run `bench.reference`."""
    port = free_port()
    async with _running_process(
        servers,
        "bench-reference",
        [sys.executable, "-m", "bench.reference", str(port)],
        environment_for(settings),
        partial(_is_ready, port, "GET /?query=%7B__typename%7D"),
    ) as process:
        yield Server(port, process)


@asynccontextmanager
async def run_constant(servers: LocalServers, body: str) -> AsyncIterator[Server]:
    """Run uvicorn with an application that responds to each request with the same body."""
    async with _running_baseline(servers, ["constant", body], child_environment({})) as server:
        yield server


@asynccontextmanager
async def run_hand_written(servers: LocalServers, settings: Settings) -> AsyncIterator[Server]:
    """Run uvicorn with an application that sends one statement to asyncpg per request."""
    async with _running_baseline(servers, ["hand-written"], environment_for(settings)) as server:
        yield server


@asynccontextmanager
async def _running_baseline(
    servers: LocalServers, arguments: Sequence[str], environment: Mapping[str, str]
) -> AsyncIterator[Server]:
    """Run `bench.baselines`."""
    port = free_port()
    async with _running_process(
        servers,
        f"bench-{arguments[0]}",
        [sys.executable, "-m", "bench.baselines", str(port), *arguments],
        environment,
        partial(_is_ready, port, "GET /"),
    ) as process:
        yield Server(port, process)


@asynccontextmanager
async def run_worker(
    servers: LocalServers, settings: Settings, *, scheduler: str = "on"
) -> AsyncIterator[ChildProcess]:
    """Run `segmentql worker`."""
    name = "bench-worker"
    environment = {**environment_for(settings), "SEGMENTQL_SCHEDULER": scheduler}

    async def has_started() -> bool:
        return "worker_started" in _log_file(servers, name).read_text()

    command = [sys.executable, "-m", "segmentql", "worker"]
    async with _running_process(servers, name, command, environment, has_started) as process:
        yield process


async def set_up_bucket(settings: Settings) -> None:
    """Create the bucket for the files of workers, if it is missing."""
    storage = Storage(settings)
    await storage.set_up()
    await storage.close()


def peak_memory_mb(process: ChildProcess) -> float | None:
    """Return the peak memory of a process so far, or None if the system has no /proc."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmHWM"].removesuffix("kB")) / 1024


@asynccontextmanager
async def run_peer(
    servers: LocalServers,
    name: str,
    command: Sequence[str],
    *,
    port: int,
    environment: Mapping[str, str],
) -> AsyncIterator[Server]:
    """Run a GraphQL server, which is ready when it responds to a query.

    Raises:
        LocalServerError: It did not start, or responds with an internal error. The message has the
            cause from its log.
    """

    async def is_ready() -> bool:
        status = await _response_status(port, "POST /graphql", body='{"query":"{__typename}"}')
        if status >= INTERNAL_ERROR:
            log = _log_file(servers, name).read_text(errors="replace")
            raise LocalServerError(
                f"{name} cannot respond to a query:\n{log[:REPORTED_CHARACTERS]}"
            )
        return status > 0

    async with _running_process(
        servers, name, command, child_environment(environment), is_ready
    ) as process:
        yield Server(port, process)


@asynccontextmanager
async def _running_process(
    servers: LocalServers,
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    is_ready: Callable[[], Awaitable[bool]],
) -> AsyncIterator[ChildProcess]:
    process = ChildProcess(
        Program(
            name=name,
            command=command,
            environment=environment,
            is_ready=is_ready,
            log_file=_log_file(servers, name),
            pid_file=servers.folder / "run" / f"{name}.pid",
        )
    )
    _log_file(servers, name).unlink(missing_ok=True)
    try:
        await process.start()
        yield process
    finally:
        await process.stop()


def _log_file(servers: LocalServers, name: str) -> Path:
    return servers.folder / "logs" / f"{name}.log"


async def _is_ready(port: int, request: str) -> bool:
    """Return whether the server responds with a status other than 5xx."""
    return 0 < await _response_status(port, request) < INTERNAL_ERROR


async def _response_status(port: int, request: str, *, body: str = "") -> int:
    """Return the status of the response to a request, or 0 if there is no response.

    Args:
        port: The port of the server.
        request: The method and the path.
        body: The body, as JSON.
    """
    lines = [f"{request} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    text = "\r\n".join([*lines, "", body])
    (line,) = await send_request("127.0.0.1", port, text.encode(), lines=1) or [b""]
    return int(line[9:12]) if line.startswith(b"HTTP/1.1 ") else 0


def environment_for(settings: Settings) -> dict[str, str]:
    """Return the environment of a SegmentQL process with these settings."""
    return child_environment(
        {
            "SEGMENTQL_DATABASE_URL": settings.database_url,
            "SEGMENTQL_DATABASE_READ_URL": "",
            "SEGMENTQL_DATABASE_POOLER": settings.database_pooler,
            "SEGMENTQL_REDIS_URL": settings.redis_url,
            "SEGMENTQL_S3_ENDPOINT_URL": settings.store.endpoint_url,
            "SEGMENTQL_S3_PUBLIC_ENDPOINT_URL": settings.store.public_endpoint_url,
            "SEGMENTQL_S3_REGION": settings.s3_region,
            "SEGMENTQL_S3_BUCKET": settings.s3_bucket,
            "SEGMENTQL_S3_ACCESS_KEY": settings.store.access_key,
            "SEGMENTQL_S3_SECRET_KEY": settings.store.secret_key,
            "SEGMENTQL_AUTH": settings.auth,
            "SEGMENTQL_RATE_PER_SECOND": str(settings.rate_per_second),
            "SEGMENTQL_HOST": "127.0.0.1",
            "SEGMENTQL_LOG_FORMAT": "json",
        }
    )
