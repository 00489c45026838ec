"""`segmentql up` runs the whole service in a folder of its own."""

import asyncio
import json
import os
import re
import shlex
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from segmentql.adapters.storage import Storage
from segmentql.local import local_servers
from segmentql.local.orphans import ON_LINUX
from segmentql.local.ports import free_port
from segmentql.settings import child_environment
from tests.conftest import until
from tests.e2e.up import (
    NONE_OUTSIDE,
    processes_of,
    running,
)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not ON_LINUX, reason="looks for left processes in Linux' /proc"),
]

CREATE = '{"query": "mutation { createSegment(input: {slug: \\"kept\\"}) { segment { slug } } }"}'
READ = '{"query": "{ segment(slug: \\"kept\\") { slug } }"}'


async def test_up_starts_in_order_serves_and_stops_cleanly(home: Path) -> None:
    async with running(home) as up:
        await up.wait_for_output("ready after")
        assert f"http://127.0.0.1:{up.port}/graphql" in up.output
        assert await up.send_operation(CREATE) == {
            "data": {"createSegment": {"segment": {"slug": "kept"}}}
        }

        secrets = up.data / "secrets.json"
        assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
        passwords = [word.encode() for word in json.loads(secrets.read_text()).values()]
        command_lines = [path.read_bytes() for path in command_line_files()]
        assert not any(word in line for word in passwords for line in command_lines)

        assert await up.stop(signal.SIGTERM) == 0
        assert processes_of(home) == []

    started = ["PostgreSQL on", "migrations,", "worker,", "API on", "ready after"]
    stopped = [f"{name} stopped" for name in ("API", "worker", "Redis", "PostgreSQL")]
    for steps in (
        [*started, *stopped],
        ["Redis on", "worker,"],
        ["object store on", "bucket,", "ready after", "worker stopped", "object store stopped"],
    ):
        positions = [up.output.index(step) for step in steps]
        assert positions == sorted(positions)
    assert not any(word.decode() in up.output for word in passwords)

    async with running(home) as restarted:
        await restarted.wait_for_output("ready after")
        assert await restarted.send_operation(READ) == {"data": {"segment": {"slug": "kept"}}}
        # A terminal sends the signal to the whole foreground group.
        os.killpg(restarted.process.pid, signal.SIGINT)
        assert await restarted.wait_for_exit() == 0
        assert processes_of(home) == []
        assert "died" not in restarted.output


def command_line_files() -> Iterator[Path]:
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and (process / "cmdline").exists():
            yield process / "cmdline"


async def test_stop_during_the_start_leaves_no_process(home: Path) -> None:
    async with running(home) as up:
        await up.wait_for_output("PostgreSQL on")
        assert await up.stop() == 0
        assert processes_of(home) == []
        assert "ready after" not in up.output


async def test_second_up_in_the_same_folder_is_rejected_with_the_pid(home: Path) -> None:
    async with running(home) as first:
        await first.wait_for_output("PostgreSQL on")
        async with running(home) as second:
            assert await second.wait_for_exit() == 1
            assert f"already in use by the process with pid {first.process.pid}" in second.output
        await first.wait_for_output("ready after")


async def test_used_port_is_reported_before_the_start(home: Path) -> None:
    async def occupied_port(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    port = free_port()
    async with (
        await asyncio.start_server(occupied_port, "127.0.0.1", port),
        running(home, port=port) as up,
    ):
        assert await up.wait_for_exit() == 1
        assert up.output == f"Error: port {port} is in use: choose another with --port\n"
        assert not (up.data / "postgres" / "data").exists()


async def test_up_recovers_after_it_was_killed(home: Path) -> None:
    async with running(home) as up:
        await up.wait_for_output("ready after")
        await up.send(CREATE)
        up.process.kill()
        await up.wait_for_exit()
        # The restart is immediate: old processes still run or just end. The port is the same.
        async with running(home, port=up.port) as restarted:
            await restarted.wait_for_output("ready after")
            assert await restarted.send_operation(READ) == {"data": {"segment": {"slug": "kept"}}}
            assert restarted.pid_of("postgresql") != up.pid_of("worker")


async def test_up_recovers_after_all_processes_were_killed(home: Path) -> None:
    async with running(home, "--workers", "2") as up:
        await up.wait_for_output("ready after")
        await up.send(CREATE)
        names = ("postgresql", "redis", "store", "worker", "api")
        pids = [up.process.pid, *(up.pid_of(name) for name in names)]
        for pid in pids:
            assert pid
            os.kill(pid, signal.SIGKILL)
        await up.wait_for_exit()
        async with running(home, port=up.port) as restarted:
            await restarted.wait_for_output("ready after")
            assert await restarted.send_operation(READ) == {"data": {"segment": {"slug": "kept"}}}


@pytest.mark.parametrize(
    ("file", "name"),
    [
        *(("worker", "worker"), ("api", "API"), ("redis", "Redis")),
        *(("postgresql", "PostgreSQL"), ("store", "object store")),
    ],
)
async def test_killed_child_is_restarted(home: Path, file: str, name: str) -> None:
    async with running(home) as up:
        await up.wait_for_output("ready after")
        before = up.pid_of(file)
        assert before

        os.kill(before, signal.SIGKILL)

        await up.wait_for_output(f"{name} died (signal SIGKILL); restarting in 0.2 s")
        await up.wait_for_output(f"{name} restarted")
        assert up.pid_of(file) != before

        async def responds() -> bool:
            return "kept" in await up.send(CREATE)

        await until(responds)
        assert await up.stop() == 0
        assert processes_of(home) == []


async def test_child_that_keeps_dying_stops_the_service(home: Path) -> None:
    async with running(home) as up:
        await up.wait_for_output("ready after")
        for death in range(1, 6):
            pid = up.pid_of("redis")
            assert pid
            os.kill(pid, signal.SIGKILL)
            if death < 5:
                await up.wait_for_output("Redis restarted", times=death)

        assert await up.wait_for_exit() == 1
        assert processes_of(home) == []
        assert "Error: Redis died 5 times in a row, each within 10 s of its start" in up.output
        assert "Ready to accept connections" in up.output  # the end of its log
        assert up.output.index("PostgreSQL stopped") < up.output.index("Error: Redis died")


async def test_external_services_replace_the_local_ones(home: Path) -> None:
    async with local_servers(home / "outside") as outside:
        (home / ".env").write_text(f"SEGMENTQL_REDIS_URL={outside.redis_url}\n")
        settings = outside.settings("segmentql")
        async with running(
            home,
            SEGMENTQL_DATABASE_URL=outside.service_url,
            SEGMENTQL_MIGRATION_DATABASE_URL=outside.owner_url,
            SEGMENTQL_S3_ENDPOINT_URL=settings.store.endpoint_url,
            SEGMENTQL_S3_ACCESS_KEY=settings.store.access_key,
            SEGMENTQL_S3_SECRET_KEY=settings.store.secret_key,
        ) as up:
            await up.wait_for_output("ready after")
            assert "kept" in await up.send(CREATE)
            for server in ("PostgreSQL on", "Redis on", "object store on"):
                assert server not in up.output
            assert sorted(path.name for path in up.data.iterdir()) == ["logs", "run"]
            assert await up.stop() == 0
        storage = Storage(settings)
        await storage.check()
        await storage.close()


async def test_other_commands_use_the_running_service(home: Path) -> None:
    async with running(home) as up:
        await up.wait_for_output("ready after")
        for command, expected in (("bucket", b""), ("doctor", b"bucket segmentql-reports")):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "segmentql", command, "--data-dir", "data"),
                cwd=home,
                env=child_environment(NONE_OUTSIDE),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await process.communicate()
            assert process.returncode == 0, output
            assert expected in output


async def test_keys_are_required_by_a_setting(home: Path) -> None:
    async with running(home, SEGMENTQL_AUTH="required") as up:
        await up.wait_for_output("ready after")
        assert "UNAUTHENTICATED" in await up.send(CREATE)
        shown_command = re.search(
            r"^KEY=\$\((segmentql keys create .*)\)$", up.output, re.MULTILINE
        )
        assert shown_command
        assert 'authorization: Bearer $KEY"' in up.output
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *shlex.split(shown_command[1])),
            cwd=home,
            env=child_environment(NONE_OUTSIDE),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        key = output.decode().strip()
        assert "kept" in await up.send(CREATE, authorization=f"Bearer {key}")
        assert await up.stop() == 0
        assert key.split("_")[2] not in up.output


async def test_wrong_setting_stops_the_start(home: Path) -> None:
    async with running(
        home,
        SEGMENTQL_LOG_LEVEL="loud",
        SEGMENTQL_WORKER_THREADS="none",
    ) as up:
        assert await up.wait_for_exit() == 1
        assert "SEGMENTQL_LOG_LEVEL" in up.output
        assert "SEGMENTQL_WORKER_THREADS" in up.output
        assert not (up.data / "postgres" / "data").exists()
