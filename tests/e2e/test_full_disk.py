"""A full disk: the service reads on, `up` names the cause, and all recovers by itself."""

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
RECOVERY_SECONDS = 5
NO_SPACE = "no space left on device"


def link_data(home: Path, disk: Disk) -> None:
    """Let the data folder be on the disk; what `up` prints goes to `home`, which has room."""
    (home / "data").symlink_to(disk.path / "data")


async def reads(up: Up) -> bool:
    try:
        return bool(await up.answer(READ) == SEGMENT)
    except httpx.TransportError:  # the API is starting
        return False


@pytest.mark.parametrize("kind", KINDS)
async def test_reads_go_on_and_the_database_comes_back_when_there_is_room(
    home: Path, kind: str
) -> None:
    with small_disk(kind, DATABASE_MEGABYTES) as disk:
        link_data(home, disk)
        async with running(home) as up:
            await up.says("ready after")
            await up.answer(CREATE)
            disk.fill()
            for _ in range(20):
                assert await up.answer(READ) == SEGMENT

            kill(up, "api")
            await up.says("API restarted")
            assert await reads(up)
            async with httpx.AsyncClient() as client:
                metrics = await client.get(f"http://127.0.0.1:{up.port}/metrics")
            assert metrics.status_code == 200
            assert "segmentql_requests_total{" in metrics.text

            kill(up, "postgresql")
            await up.says(NO_SPACE)
            assert str(disk.path) in up.said
            # Longer than the five restarts after which `up` gives up on other faults.
            failing_since = time.monotonic()

            async def has_failed_for_long() -> bool:
                return time.monotonic() - failing_since > 15

            await until(has_failed_for_long)
            assert up.process.poll() is None
            assert re.findall(
                rf"PostgreSQL died \([^)]+\): {NO_SPACE}: (\S+) MiB free", up.said
            ) == ["0.0"]
            assert (await up.answer(READ))["errors"][0]["extensions"]["code"] == "UNAVAILABLE"

            disk.free()
            await until(lambda: reads(up), seconds=2 * RECOVERY_SECONDS)  # a loaded machine
            assert await up.stop() == 0
            assert "\nTraceback" not in f"\n{up.said}"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_first_start_without_room_ends_with_the_cause(home: Path, kind: str) -> None:
    with small_disk(kind, 12) as disk:
        link_data(home, disk)
        async with running(home) as up:
            assert await up.ends() == 1
            assert NO_SPACE in up.said.lower()
            assert " MiB free" in up.said
            assert str(disk.path) in up.said
            assert "\nTraceback" not in f"\n{up.said}"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_start_on_a_disk_without_one_free_block_ends_with_the_cause(
    home: Path, kind: str
) -> None:
    with small_disk(kind, 12) as disk:
        link_data(home, disk)
        disk.fill()
        async with running(home) as up:
            assert await up.ends() == 1
            assert NO_SPACE in up.said.lower()
            assert str(disk.path) in up.said
            assert "\nTraceback" not in f"\n{up.said}"


def kill(up: Up, name: str) -> None:
    pid = up.pid_of(name)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
