"""Small reads succeed under silent connections, responses at the limit and a full disk."""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import until
from tests.disks import Disk, small_disk
from tests.e2e.up import Up, running

pytestmark = pytest.mark.e2e

log = logging.getLogger(__name__)

DISK_MEGABYTES = 320
SILENT_CONNECTIONS = 400
LARGE_RESPONSES = 20
LOAD_SECONDS = 15
RECOVERY_SECONDS = 5
P99_SECONDS = 0.1

SMALL_QUERY = "{ user(id: 1) { id segments { slug } } }"
WRITE = "mutation { updateUserSegments(input: {userId: 1}) { user { id } errors { message } } }"


class SmallReads:
    """Sends small reads, each on a new connection, and records the results."""

    def __init__(self, up: Up) -> None:
        self._url = f"http://127.0.0.1:{up.port}/graphql"
        # Loading the certificates takes longer than a read.
        self._client = httpx.AsyncClient(
            verify=False,  # noqa: S501 - plain HTTP
            timeout=10,
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self.seconds: list[float] = []
        self.unexpected: list[str] = []
        self.unavailable = 0

    async def once(self) -> None:
        began = time.monotonic()
        try:
            response = await self._client.post(self._url, json={"query": SMALL_QUERY})
        except httpx.TransportError as error:
            self.unexpected.append(repr(error))
            return
        body = response.json()
        if body.get("data", {}).get("user", {}).get("id") == "1":
            self.seconds.append(time.monotonic() - began)
        elif body["errors"][0]["extensions"]["code"] == "UNAVAILABLE":
            self.unavailable += 1
        else:
            self.unexpected.append(response.text)

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]


@asynccontextmanager
async def large_responses(up: Up) -> AsyncIterator[None]:
    """Request large responses from another process, which takes no time of this event loop."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.e2e.large_responses", str(up.port), str(LARGE_RESPONSES)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield
    finally:
        output, _ = await process.communicate(b"")  # the process ends at the end of its input
    smallest, largest = map(int, output.split())
    assert smallest > 0
    assert largest > 15_000_000


async def test_small_reads_succeed_under_overload(
    home: Path,
) -> None:
    with small_disk("tmpfs", DISK_MEGABYTES) as disk:
        (home / "data").symlink_to(disk.path / "data")
        async with running(home, "--demo") as up:
            await up.wait_for_output("ready after")
            idle = SmallReads(up)
            for _ in range(100):
                await idle.once()
            assert (idle.unexpected, idle.unavailable) == ([], 0)
            loaded = await under_load(up, disk)
            log.info(
                "p99: %.1f ms idle, %.1f ms under load; %d read, %d UNAVAILABLE",
                idle.p99 * 1000,
                loaded.p99 * 1000,
                len(loaded.seconds),
                loaded.unavailable,
            )
            assert loaded.unexpected == []
            # Only on a machine that is slow when idle may the time exceed the documented one.
            assert loaded.p99 < max(P99_SECONDS, 10 * idle.p99)

            freed = time.monotonic()
            await until(lambda: writes(up), seconds=4 * RECOVERY_SECONDS)
            log.info("recovered after %.1f s", time.monotonic() - freed)
            assert await up.stop() == 0


async def under_load(up: Up, disk: Disk) -> SmallReads:
    silent = [
        await asyncio.open_connection("127.0.0.1", up.port) for _ in range(SILENT_CONNECTIONS)
    ]
    reads = SmallReads(up)
    async with large_responses(up):
        disk.fill()
        began = time.monotonic()
        while time.monotonic() - began < LOAD_SECONDS:
            await reads.once()
            await asyncio.sleep(0.05)
    for _, writer in silent:
        writer.close()
    disk.free()
    return reads


async def writes(up: Up) -> bool:
    try:
        body = await up.send_operation(WRITE.join(('{"query": "', '"}')))
    except httpx.TransportError:
        return False
    return bool(body.get("data") == {"updateUserSegments": {"user": {"id": "1"}, "errors": []}})
