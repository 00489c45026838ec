"""`segmentql up` as a user runs it: the whole service, in a folder of its own."""

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


async def test_it_starts_in_order_answers_and_stops_without_a_trace(home: Path) -> None:
    async with running(home) as up:
        await up.says("ready after")
        assert f"http://127.0.0.1:{up.port}/graphql" in up.said
        assert await up.answer(CREATE) == {"data": {"createSegment": {"segment": {"slug": "kept"}}}}

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
        places = [up.said.index(step) for step in steps]
        assert places == sorted(places)
    assert not any(word.decode() in up.said for word in passwords)

    async with running(home) as again:
        await again.says("ready after")
        assert await again.answer(READ) == {"data": {"segment": {"slug": "kept"}}}
        # As a terminal does it: to the whole foreground group.
        os.killpg(again.process.pid, signal.SIGINT)
        assert await again.ends() == 0
        assert processes_of(home) == []
        assert "died" not in again.said


def command_line_files() -> Iterator[Path]:
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and (process / "cmdline").exists():
            yield process / "cmdline"


async def test_a_stop_during_the_start_leaves_nothing(home: Path) -> None:
    async with running(home) as up:
        await up.says("PostgreSQL on")
        assert await up.stop() == 0
        assert processes_of(home) == []
        assert "ready after" not in up.said


async def test_a_second_one_in_the_same_folder_is_refused_with_the_pid(home: Path) -> None:
    async with running(home) as first:
        await first.says("PostgreSQL on")
        async with running(home) as second:
            assert await second.ends() == 1
            assert f"already in use by the process with pid {first.process.pid}" in second.said
        await first.says("ready after")


async def test_a_port_in_use_is_said_before_anything_is_started(home: Path) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    port = free_port()
    async with (
        await asyncio.start_server(answer, "127.0.0.1", port),
        running(home, port=port) as up,
    ):
        assert await up.ends() == 1
        assert up.said == f"Error: port {port} is in use: choose another with --port\n"
        assert not (up.data / "postgres" / "data").exists()


async def test_after_a_kill_of_up_itself_the_next_one_recovers(home: Path) -> None:
    async with running(home) as up:
        await up.says("ready after")
        await up.ask(CREATE)
        up.process.kill()
        await up.ends()
        # At once: what was left is still there or just going. Also the port is the same.
        async with running(home, port=up.port) as again:
            await again.says("ready after")
            assert await again.answer(READ) == {"data": {"segment": {"slug": "kept"}}}
            assert again.pid_of("postgresql") != up.pid_of("worker")


async def test_everything_killed_at_once_is_recovered_from(home: Path) -> None:
    async with running(home, "--workers", "2") as up:
        await up.says("ready after")
        await up.ask(CREATE)
        names = ("postgresql", "redis", "store", "worker", "api")
        pids = [up.process.pid, *(up.pid_of(name) for name in names)]
        for pid in pids:
            assert pid
            os.kill(pid, signal.SIGKILL)
        await up.ends()
        async with running(home, port=up.port) as again:
            await again.says("ready after")
            assert await again.answer(READ) == {"data": {"segment": {"slug": "kept"}}}


@pytest.mark.parametrize(
    ("file", "name"),
    [
        *(("worker", "worker"), ("api", "API"), ("redis", "Redis")),
        *(("postgresql", "PostgreSQL"), ("store", "object store")),
    ],
)
async def test_a_killed_child_is_started_again_and_the_service_goes_on(
    home: Path, file: str, name: str
) -> None:
    async with running(home) as up:
        await up.says("ready after")
        before = up.pid_of(file)
        assert before

        os.kill(before, signal.SIGKILL)

        await up.says(f"{name} died (signal SIGKILL); restarting in 0.2 s")
        await up.says(f"{name} restarted")
        assert up.pid_of(file) != before

        async def answers() -> bool:
            return "kept" in await up.ask(CREATE)

        await until(answers)
        assert await up.stop() == 0
        assert processes_of(home) == []


async def test_a_child_that_keeps_dying_stops_everything(home: Path) -> None:
    async with running(home) as up:
        await up.says("ready after")
        for death in range(1, 6):
            pid = up.pid_of("redis")
            assert pid
            os.kill(pid, signal.SIGKILL)
            if death < 5:
                await up.says("Redis restarted", times=death)

        assert await up.ends() == 1
        assert processes_of(home) == []
        assert "Error: Redis died 5 times in a row, each within 10 s of its start" in up.said
        assert "Ready to accept connections" in up.said  # the end of its log
        assert up.said.index("PostgreSQL stopped") < up.said.index("Error: Redis died")


async def test_outside_services_are_used_instead_of_ours(home: Path) -> None:
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
            await up.says("ready after")
            assert "kept" in await up.ask(CREATE)
            for server in ("PostgreSQL on", "Redis on", "object store on"):
                assert server not in up.said
            assert sorted(path.name for path in up.data.iterdir()) == ["logs", "run"]
            assert await up.stop() == 0
        storage = Storage(settings)
        await storage.check()
        await storage.close()


async def test_other_commands_find_what_runs(home: Path) -> None:
    async with running(home) as up:
        await up.says("ready after")
        for command, told in (("bucket", b""), ("doctor", b"bucket segmentql-reports")):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "segmentql", command, "--data-dir", "data"),
                cwd=home,
                env=child_environment(NONE_OUTSIDE),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await process.communicate()
            assert process.returncode == 0, output
            assert told in output


async def test_keys_are_asked_for_where_a_setting_says_so(home: Path) -> None:
    async with running(home, SEGMENTQL_AUTH="required") as up:
        await up.says("ready after")
        assert "UNAUTHENTICATED" in await up.ask(CREATE)
        said = re.search(r"^KEY=\$\((segmentql keys create .*)\)$", up.said, re.MULTILINE)
        assert said
        assert 'authorization: Bearer $KEY"' in up.said
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *shlex.split(said[1])),
            cwd=home,
            env=child_environment(NONE_OUTSIDE),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        key = output.decode().strip()
        assert "kept" in await up.ask(CREATE, authorization=f"Bearer {key}")
        assert await up.stop() == 0
        assert key.split("_")[2] not in up.said


async def test_a_wrong_setting_stops_the_start_before_anything_is_started(home: Path) -> None:
    async with running(
        home,
        SEGMENTQL_LOG_LEVEL="loud",
        SEGMENTQL_WORKER_THREADS="none",
        SEGMENTQL_S3_ENDPOINT_URL="http://127.0.0.1:1",
    ) as up:
        assert await up.ends() == 1
        assert "SEGMENTQL_S3_ACCESS_KEY is not set" in up.said
        assert "SEGMENTQL_S3_SECRET_KEY is not set" in up.said
        assert "SEGMENTQL_LOG_LEVEL" in up.said
        assert "SEGMENTQL_WORKER_THREADS" in up.said
        assert not (up.data / "postgres" / "data").exists()
