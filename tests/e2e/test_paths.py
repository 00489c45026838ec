"""`segmentql up` works in a data folder with a name that is hard to quote, print or decode."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import httpx
import pytest

from segmentql.settings import child_environment
from tests.conftest import until
from tests.e2e.up import NONE_OUTSIDE, processes_of, running

pytestmark = pytest.mark.e2e

READ = '{"query": "{ segment(slug: \\"kept\\") { slug } }"}'


@pytest.mark.parametrize("name", [b"latin-\xe9\xff", b'it\'s "two"\nlines,\\ 50% $HOME #'])
async def test_up_runs_in_a_folder_of_any_name(home: Path, name: bytes) -> None:
    folder = home / os.fsdecode(name)
    (home / "data").symlink_to(folder)  # the test reads process ids there
    option = ("--data-dir", folder.name)
    async with running(home, *option, PYTHONIOENCODING="utf-8:strict") as up:
        await up.wait_for_output("ready after")
        assert await up.send_operation(READ) == {"data": {"segment": None}}
        pid = up.pid_of("api")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await up.wait_for_output("API restarted")
        async with httpx.AsyncClient() as client:
            metrics = await client.get(f"http://127.0.0.1:{up.port}/metrics")
        assert "segmentql_requests_total{" in metrics.text
        doctor = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "segmentql", "doctor", *option),
            cwd=home,
            env=child_environment(NONE_OUTSIDE),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await doctor.communicate()
        assert doctor.returncode == 0, output
        up.process.kill()  # the next run finds its data
        await up.wait_for_exit()
    async with running(home, *option, PYTHONIOENCODING="utf-8:strict") as restarted:
        await restarted.wait_for_output("ready after")
        assert await restarted.stop() == 0
    assert "\nTraceback" not in f"\n{up.output}\n{restarted.output}"
    assert f"all stopped; the data stay in {home}/" in restarted.output
    await until(lambda: _ignore(home))
    logs = [path.name for path in home.glob("up-*.log")]
    assert sorted(os.listdir(home)) == sorted([folder.name, "data", *logs])


async def _ignore(home: Path) -> bool:
    return processes_of(home) == []
