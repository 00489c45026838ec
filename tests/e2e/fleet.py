"""API processes and workers on addresses of their own, which a test restarts one by one."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias

import httpx

from segmentql.local.ports import free_port
from segmentql.settings import Settings
from tests.conftest import environment, until
from tests.e2e.up import READY_SECONDS

Command: TypeAlias = Literal["serve", "worker"]

READY_PATHS: Final = {"serve": "/readyz", "worker": "/healthz"}


class ServiceProcess:
    """A `segmentql serve` or `segmentql worker`."""

    def __init__(self, command: Command, settings: Settings, log: Path, **changes: str) -> None:
        """Prepare a process.

        Args:
            command: The command of `segmentql`.
            settings: The addresses of the servers.
            log: The file for its log.
            changes: Environment variables. `SEGMENTQL_HOST` is the address to listen on.
        """
        self.log = log
        self._command = command
        self._port = free_port()
        ports = {"SEGMENTQL_PORT": str(self._port), "SEGMENTQL_WORKER_PORT": str(self._port)}
        self._environment = environment(settings, **ports, **changes)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        return f"{self._environment['SEGMENTQL_HOST']}:{self._port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "segmentql", self._command),
                env=self._environment,
                stderr=log,
            )
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as client:
            await until(lambda: self._is_ready(client), seconds=READY_SECONDS)

    async def _is_ready(self, client: httpx.AsyncClient) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, self.log.read_text()[-2000:]
        try:
            response = await client.get(READY_PATHS[self._command])
        except httpx.TransportError:
            return False
        return response.status_code == 200

    async def stop(self) -> int | None:
        """Send SIGTERM, wait for the end, and return the exit code."""
        if self._process is None:
            return None
        with suppress(ProcessLookupError):  # a failed start
            self._process.terminate()
        code = await self._process.wait()
        self._process = None
        return code

    async def kill(self) -> None:
        """Send SIGKILL, and wait for the end."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
        self._process = None

    async def restart(self) -> None:
        """Stop it by SIGTERM, and start it again."""
        assert await self.stop() in {0, -15}, self.log.read_text()[-2000:]
        await self.start()


@asynccontextmanager
async def started(processes: Sequence[ServiceProcess]) -> AsyncIterator[None]:
    """Run processes, and stop those that still run at the end."""
    async with AsyncExitStack() as stack:
        for process in processes:
            stack.push_async_callback(process.stop)
        for process in processes:  # one by one, because each start takes a processor
            await process.start()
        yield
