"""`segmentql up` prints status lines and keeps its ports and data until `segmentql reset`."""

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


def addresses(output: str) -> dict[str, str]:
    return dict(re.findall(r"^(PostgreSQL|Redis|object store) on (\S+),", output, re.MULTILINE))


def sockets(up: Up) -> list[Path]:
    """Return the object store's sockets outside the data folder, by the ports that it used last."""
    ports = json.loads((up.data / "run" / "store.ports").read_text())
    folder = Path("/tmp")  # noqa: S108 - the store's choice
    return [path for port in ports for path in folder.glob(f"seaweedfs-*-{port}.sock")]


async def has_every_socket(up: Up) -> bool:
    return len(sockets(up)) >= 5  # more, if a killed store had the same port


async def command(home: Path, *words: str) -> tuple[int | None, str]:
    """Return the status and the output of a command without a terminal."""
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


async def test_logs_go_to_files_and_errors_also_to_the_terminal(home: Path) -> None:
    async with running(home) as up:
        await up.wait_for_output("ready after")
        await up.send(READ)
        logs = up.data / "logs"
        # A renamed table causes a fault.
        password = json.loads((up.data / "secrets.json").read_text())["owner"]
        owner = await asyncpg.connect(
            f"postgresql://segmentql_owner:{password}@{addresses(up.output)['PostgreSQL']}/segmentql"
        )
        await owner.execute("ALTER TABLE segments RENAME TO lost")
        assert "INTERNAL" in await up.send(READ)
        await owner.execute("ALTER TABLE lost RENAME TO segments")
        await owner.close()
        await up.wait_for_output("API error: request_failed")
        assert await up.stop() == 0

    assert up.output.count(str(logs)) == 1
    before, rest = up.output.split("ready after", 1)
    assert [line for line in before.splitlines() if not OWN_LINE.fullmatch(line)] == []
    errors = [line for line in rest.splitlines() if "API error" in line]
    assert len(errors) == 1
    assert 'relation "segments" does not exist (request_id' in errors[0]
    assert "Traceback" not in up.output
    assert '"event"' not in up.output
    assert "\x1b" not in up.output
    api_log = [json.loads(line) for line in (logs / "api.log").read_text().splitlines()]
    assert [line["outcome"] for line in api_log if line["event"] == "request"] == ["done", "failed"]
    assert "worker_started" in (logs / "worker.log").read_text()
    assert (logs / "migrations.log").exists()
    assert (logs / "bucket.log").exists()


async def test_verbose_prints_the_logs_of_the_service(home: Path) -> None:
    async with running(home, "--verbose") as up:
        await up.wait_for_output("ready after")
        await up.send(READ)
        await up.wait_for_output('"event":"request"')
        await up.wait_for_output("worker_started")
        assert await up.stop() == 0
    assert not (up.data / "logs" / "api.log").exists()


async def test_ports_survive_restarts_and_yield_to_other_programs(home: Path) -> None:
    async with running(home) as first:
        await first.wait_for_output("ready after")
        # The admin server starts after the store is ready.
        await until(lambda: has_every_socket(first))
        before, leftover_sockets = addresses(first.output), sockets(first)
        assert await first.stop() == 0
        assert not any(path.exists() for path in leftover_sockets)

    async with running(home) as second:
        await second.wait_for_output("ready after")
        assert addresses(second.output) == before
        await until(lambda: has_every_socket(second))
        assert sockets(second) == leftover_sockets
        # No process gets the chance to clean up. `up` is stopped first, so that it restarts no
        # process, and killed last, because its death stops the others.
        pids = [second.pid_of(name) for name in ("postgresql", "redis", "store", "worker", "api")]
        second.process.send_signal(signal.SIGSTOP)
        for pid in pids:
            assert pid
            os.kill(pid, signal.SIGKILL)
        second.process.kill()
        await second.wait_for_exit()

    await until(lambda: nothing_runs(home))
    assert len([path for path in leftover_sockets if path.exists()]) == 5
    redis, store = (int(before[name].split(":")[1]) for name in ("Redis", "object store"))
    grpc = int(leftover_sockets[0].stem.rsplit("-", 1)[1])
    with socket.create_server(("127.0.0.1", redis)), socket.create_server(("127.0.0.1", grpc)):
        async with running(home) as third:
            await third.wait_for_output("ready after")
            after, now = addresses(third.output), sockets(third)
            assert after["PostgreSQL"] == before["PostgreSQL"]
            assert after["object store"] == f"127.0.0.1:{store}"
            assert after["Redis"] != before["Redis"]
            assert f"port {redis} is used by another program: Redis uses" in third.output
            assert f"port {grpc} is used by another program: object store" in third.output
            # This includes the socket of the port that now belongs to another program.
            assert len(now) == 5
            assert not leftover_sockets[0].exists()
            assert await third.stop() == 0
            assert not any(path.exists() for path in {*leftover_sockets, *now})

    async with running(home) as fourth:
        await fourth.wait_for_output("Redis on")
        assert addresses(fourth.output)["Redis"] == after["Redis"]


async def test_demo_data_exist_at_the_start_and_reset_deletes_all(home: Path) -> None:
    async with running(home, "--demo") as up:
        await up.wait_for_output("ready after")
        assert up.output.index("migrations,") < up.output.index("demo data,")
        count = (await up.send_operation(COUNT))["data"]["segment"]["memberCount"]
        assert count > 100
        leftover_sockets = sockets(up)

        status, output = await command(home, "reset", "--data-dir", "data")
        assert (status, up.process.poll()) == (1, None)
        assert "--yes" in output

        status, output = await command(home, "reset", "--data-dir", "data", "--yes")
        assert status == 0, output
        assert f"stopped `segmentql up` (pid {up.process.pid})" in output
        assert await up.wait_for_exit() == 0
        assert not up.data.exists()
        assert processes_of(home) == []
        assert not any(path.exists() for path in leftover_sockets)
