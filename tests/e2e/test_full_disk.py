"""With a full disk, the service still reads, and `up` prints the cause.

The service recovers by itself when the disk has space again.
"""

import os
import re
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.conftest import until
from tests.disks import KINDS, Disk, small_disk
from tests.e2e.up import Up, running

pytestmark = pytest.mark.e2e

CREATE = '{"query": "mutation { createSegment(input: {slug: \\"kept\\"}) { segment { slug } } }"}'
READ = '{"query": "{ segment(slug: \\"kept\\") { slug } }"}'
SEGMENT = {"data": {"segment": {"slug": "kept"}}}
DATABASE_MEGABYTES = 224  # a new cluster with its first log segments
CACHE_MEGABYTES = 1
"""More than the size of the files pg_internal.init. PostgreSQL deletes them before its recovery,
which then fails because it needs a log segment of 16 MB. Other processes may use their space."""

RECOVERY_SECONDS = 5
NO_SPACE = "no space left on device"


def link_data(home: Path, disk: Disk) -> None:
    """Place the data folder on the disk; its output goes to `home`, which has free space."""
    (home / "data").symlink_to(disk.path / "data")


async def reads(up: Up) -> bool:
    try:
        return bool(await up.send_operation(READ) == SEGMENT)
    except httpx.TransportError:  # the API is starting
        return False


@pytest.mark.parametrize("kind", KINDS)
async def test_service_recovers_when_the_disk_has_space_again(home: Path, kind: str) -> None:
    with small_disk(kind, DATABASE_MEGABYTES) as disk:
        link_data(home, disk)
        async with running(home) as up:
            await up.wait_for_output("ready after")
            await up.send_operation(CREATE)
            disk.fill()
            for _ in range(20):
                assert await up.send_operation(READ) == SEGMENT

            kill(up, "api")
            await up.wait_for_output("API restarted")
            assert await reads(up)
            async with httpx.AsyncClient() as client:
                metrics = await client.get(f"http://127.0.0.1:{up.port}/metrics")
            assert metrics.status_code == 200
            assert "segmentql_requests_total{" in metrics.text

            kill(up, "postgresql")
            await up.wait_for_output(NO_SPACE)
            assert str(disk.path) in up.output
            # This is longer than the five restarts after which `up` stops for other faults.
            failing_since = time.monotonic()

            async def has_failed_for_long() -> bool:
                return time.monotonic() - failing_since > 15

            await until(has_failed_for_long)
            assert up.process.poll() is None
            (free,) = re.findall(
                rf"PostgreSQL died \([^)]+\): {NO_SPACE}: (\S+) MiB free", up.output
            )
            assert float(free) < CACHE_MEGABYTES
            assert (await up.send_operation(READ))["errors"][0]["extensions"][
                "code"
            ] == "UNAVAILABLE"

            disk.free()
            await until(lambda: reads(up), seconds=2 * RECOVERY_SECONDS)  # a loaded machine
            assert await up.stop() == 0
            assert "\nTraceback" not in f"\n{up.output}"


@pytest.mark.parametrize("kind", KINDS)
async def test_first_start_on_a_full_disk_fails_with_the_cause(home: Path, kind: str) -> None:
    with small_disk(kind, 12) as disk:
        link_data(home, disk)
        async with running(home) as up:
            assert await up.wait_for_exit() == 1
            assert NO_SPACE in up.output.lower()
            assert " MiB free" in up.output
            assert str(disk.path) in up.output
            assert "\nTraceback" not in f"\n{up.output}"


@pytest.mark.parametrize("kind", KINDS)
async def test_start_without_a_free_block_fails_with_the_cause(home: Path, kind: str) -> None:
    with small_disk(kind, 12) as disk:
        link_data(home, disk)
        disk.fill()
        async with running(home) as up:
            assert await up.wait_for_exit() == 1
            assert NO_SPACE in up.output.lower()
            assert str(disk.path) in up.output
            assert "\nTraceback" not in f"\n{up.output}"


def kill(up: Up, name: str) -> None:
    pid = up.pid_of(name)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
