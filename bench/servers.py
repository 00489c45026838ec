"""What is measured, as processes: the API, the worker, and whom they are compared with."""

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segmentql.local import ChildProcess, LocalServers, Program
from segmentql.local.ports import free_port
from segmentql.local.probes import send_request
from segmentql.settings import Settings, child_environment


@dataclass(frozen=True)
class Server:
    """An HTTP server of one process, on 127.0.0.1."""

    port: int
    process: ChildProcess

    def cpu_seconds(self) -> float | None:
        """The CPU time that it has used so far; None where the system does not tell (no /proc).

        What a busy neighbour on the machine does to time, it does not do to this.
        """
        stat = Path(f"/proc/{self.process.pid}/stat")
        if not stat.exists():
            return None
        # After the name, which may contain anything but its last ")": see proc_pid_stat(5).
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def api(servers: LocalServers, settings: Settings, name: str) -> AsyncIterator[Server]:
    """`segmentql serve`, one process."""
    port = free_port()
    async with _running(
        servers,
        name,
        [sys.executable, "-m", "segmentql", "serve", "--port", str(port)],
        environment_of(settings),
        partial(_answers, port, "GET /readyz"),
    ) as process:
        yield Server(port, process)


@asynccontextmanager
async def reference(servers: LocalServers, settings: Settings) -> AsyncIterator[Server]:
    """`bench.reference`, one process."""
    port = free_port()
    async with _running(
        servers,
        "bench-reference",
        [sys.executable, "-m", "bench.reference", str(port)],
        environment_of(settings),
        partial(_answers, port, "GET /?query=%7B__typename%7D"),
    ) as process:
        yield Server(port, process)


@asynccontextmanager
async def worker(
    servers: LocalServers, settings: Settings, *, scheduler: str = "on"
) -> AsyncIterator[ChildProcess]:
    """`segmentql worker`."""
    name = "bench-worker"
    environment = {**environment_of(settings), "SEGMENTQL_SCHEDULER": scheduler}

    async def has_started() -> bool:
        return "worker_started" in _log(servers, name).read_text()

    command = [sys.executable, "-m", "segmentql", "worker"]
    async with _running(servers, name, command, environment, has_started) as process:
        yield process


def peak_memory_mb(process: ChildProcess) -> float | None:
    """The most memory that it has had so far; None where the system does not tell (no /proc)."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmHWM"].removesuffix("kB")) / 1024


@asynccontextmanager
async def other(
    servers: LocalServers,
    name: str,
    command: Sequence[str],
    *,
    port: int,
    environment: Mapping[str, str],
) -> AsyncIterator[Server]:
    """A peer that was found on this machine, ready as soon as it answers HTTP."""
    async with _running(
        servers,
        name,
        command,
        child_environment(environment),
        partial(_answers, port, "GET /"),
    ) as process:
        yield Server(port, process)


@asynccontextmanager
async def _running(
    servers: LocalServers,
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    ready: Callable[[], Awaitable[bool]],
) -> AsyncIterator[ChildProcess]:
    process = ChildProcess(
        Program(
            name=name,
            command=command,
            environment=environment,
            is_ready=ready,
            log_file=_log(servers, name),
            pid_file=servers.folder / "run" / f"{name}.pid",
        )
    )
    _log(servers, name).unlink(missing_ok=True)
    try:
        await process.start()
        yield process
    finally:
        await process.stop()


def _log(servers: LocalServers, name: str) -> Path:
    return servers.folder / "logs" / f"{name}.log"


async def _answers(port: int, request: str) -> bool:
    """Whether the server answers, and not with a fault of its own."""
    head = f"{request} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    (line,) = await send_request("127.0.0.1", port, head.encode(), lines=1) or [b""]
    return line.startswith(b"HTTP/1.1 ") and not line.startswith(b"HTTP/1.1 5")


def environment_of(settings: Settings) -> dict[str, str]:
    """What a process of ours is to find, to serve by these settings."""
    return child_environment(
        {
            "SEGMENTQL_DATABASE_URL": settings.database_url,
            "SEGMENTQL_DATABASE_READ_URL": "",
            "SEGMENTQL_REDIS_URL": settings.redis_url,
            "SEGMENTQL_S3_ENDPOINT_URL": settings.store.endpoint_url,
            "SEGMENTQL_S3_PUBLIC_ENDPOINT_URL": settings.store.public_endpoint_url,
            "SEGMENTQL_S3_REGION": settings.s3_region,
            "SEGMENTQL_S3_BUCKET": settings.s3_bucket,
            "SEGMENTQL_S3_ACCESS_KEY": settings.store.access_key,
            "SEGMENTQL_S3_SECRET_KEY": settings.store.secret_key,
            "SEGMENTQL_AUTH": settings.auth,
            "SEGMENTQL_HOST": "127.0.0.1",
            "SEGMENTQL_LOG_FORMAT": "json",
        }
    )
