"""What `segmentql up` prints, what it keeps between runs, and what `segmentql reset` deletes."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from pathlib import Path

import asyncpg
import pytest

from segmentql.local.orphans import ON_LINUX
from segmentql.settings import child_environment
from tests.conftest import until
from tests.e2e.up import NONE_OUTSIDE, Up, nothing_runs, processes_of, running

# Slow: each test starts the whole service.
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not ON_LINUX, reason="looks for left processes in Linux' /proc"),
]

READ = '{"query": "{ segment(slug: \\"kept\\") { slug } }"}'
COUNT = '{"query": "{ segment(slug: \\"AVITO_DISCOUNT_30\\") { memberCount } }"}'
OWN_LINE = re.compile(
    r"(PostgreSQL|Redis|object store|API) on 127\.0\.0\.1:\d+, \d+\.\d s"
    r"|(migrations|bucket|worker|demo data), \d+\.\d s"
    r"|(API|worker|Redis|PostgreSQL|object store) stopped, \d+\.\d s"
)


def addresses(said: str) -> dict[str, str]:
    return dict(re.findall(r"^(PostgreSQL|Redis|object store) on (\S+),", said, re.MULTILINE))


def sockets(up: Up) -> list[Path]:
    """The object store's sockets outside the data folder, by the ports that it used last."""
    ports = json.loads((up.data / "run" / "store.ports").read_text())
    folder = Path("/tmp")  # noqa: S108 - the store's choice
    return [path for port in ports for path in folder.glob(f"seaweedfs-*-{port}.sock")]


async def command(home: Path, *words: str) -> tuple[int | None, str]:
    """The status and the output of a command, which has no terminal."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", *words),
        cwd=home,
        env=child_environment(NONE_OUTSIDE),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_logs_go_to_files_and_errors_to_the_terminal_too(home: Path) -> None:
    async with running(home) as up:
        await up.says("ready after")
        await up.ask(READ)
        logs = up.data / "logs"
        # A fault: a table that is not there.
        password = json.loads((up.data / "secrets.json").read_text())["owner"]
        owner = await asyncpg.connect(
            f"postgresql://segmentql_owner:{password}@{addresses(up.said)['PostgreSQL']}/segmentql"
        )
        await owner.execute("ALTER TABLE segments RENAME TO lost")
        assert "INTERNAL" in await up.ask(READ)
        await owner.execute("ALTER TABLE lost RENAME TO segments")
        await owner.close()
        await up.says("API error: request_failed")
        assert await up.stop() == 0

    assert up.said.count(str(logs)) == 1
    before, rest = up.said.split("ready after", 1)
    assert [line for line in before.splitlines() if not OWN_LINE.fullmatch(line)] == []
    errors = [line for line in rest.splitlines() if "API error" in line]
    assert len(errors) == 1
    assert 'relation "segments" does not exist (request_id' in errors[0]
    assert "Traceback" not in up.said
    assert '"event"' not in up.said
    assert "\x1b" not in up.said
    told = [json.loads(line) for line in (logs / "api.log").read_text().splitlines()]
    assert [line["outcome"] for line in told if line["event"] == "request"] == ["done", "failed"]
    assert "worker_started" in (logs / "worker.log").read_text()
    assert (logs / "migrations.log").exists()
    assert (logs / "bucket.log").exists()


async def test_verbose_shows_the_logs_of_the_service_on_the_terminal(home: Path) -> None:
    async with running(home, "--verbose") as up:
        await up.says("ready after")
        await up.ask(READ)
        await up.says('"event":"request"')
        await up.says("worker_started")
        assert await up.stop() == 0
    assert not (up.data / "logs" / "api.log").exists()


async def test_ports_outlive_a_restart_and_a_kill_and_yield_to_other_programs(home: Path) -> None:
    async with running(home) as first:
        await first.says("ready after")
        before, left = addresses(first.said), sockets(first)
        assert len(left) == 5
        assert await first.stop() == 0
        assert not any(path.exists() for path in left)

    async with running(home) as second:
        await second.says("ready after")
        assert addresses(second.said) == before
        assert sockets(second) == left
        # Nothing gets the chance to tidy up.
        names = ("postgresql", "redis", "store", "worker", "api")
        for pid in [second.process.pid, *(second.pid_of(name) for name in names)]:
            assert pid
            os.kill(pid, signal.SIGKILL)
        await second.ends()

    await until(lambda: nothing_runs(home))
    assert len([path for path in left if path.exists()]) == 5
    redis, store = (int(before[name].split(":")[1]) for name in ("Redis", "object store"))
    grpc = int(left[0].stem.rsplit("-", 1)[1])
    with socket.create_server(("127.0.0.1", redis)), socket.create_server(("127.0.0.1", grpc)):
        async with running(home) as third:
            await third.says("ready after")
            after, now = addresses(third.said), sockets(third)
            assert after["PostgreSQL"] == before["PostgreSQL"]
            assert after["object store"] == f"127.0.0.1:{store}"
            assert after["Redis"] != before["Redis"]
            assert f"port {redis} is used by another program: Redis uses" in third.said
            assert f"port {grpc} is used by another program: object store" in third.said
            # Also the one of the port that now belongs to another program.
            assert len(now) == 5
            assert not left[0].exists()
            assert await third.stop() == 0
            assert not any(path.exists() for path in {*left, *now})

    async with running(home) as fourth:
        await fourth.says("Redis on")
        assert addresses(fourth.said)["Redis"] == after["Redis"]


async def test_demo_data_are_there_at_once_and_reset_deletes_everything(home: Path) -> None:
    async with running(home, "--demo") as up:
        await up.says("ready after")
        assert up.said.index("migrations,") < up.said.index("demo data,")
        count = (await up.answer(COUNT))["data"]["segment"]["memberCount"]
        assert count > 100
        left = sockets(up)

        status, said = await command(home, "reset", "--data-dir", "data")
        assert (status, up.process.poll()) == (1, None)
        assert "--yes" in said

        status, said = await command(home, "reset", "--data-dir", "data", "--yes")
        assert status == 0, said
        assert f"stopped `segmentql up` (pid {up.process.pid})" in said
        assert await up.ends() == 0
        assert not up.data.exists()
        assert processes_of(home) == []
        assert not any(path.exists() for path in left)
