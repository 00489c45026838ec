"""Random kills under load lose no acknowledged change and apply the others in full or not at all.

The default is six rounds; SEGMENTQL_TEST_CHAOS_ROUNDS=100 (`python -m bench chaos`) is the long
form, and SEGMENTQL_TEST_CHAOS_SEED repeats the random choices of an earlier run (their effect still
depends on timing).
"""

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import asyncpg
import httpx
import pytest

from bench.data import generate
from segmentql.local.orphans import ON_LINUX
from segmentql.settings import raw_value
from tests.conftest import Sql, until
from tests.e2e.chaos_client import (
    ANSWER_SECONDS,
    CONTESTED,
    FIRST,
    RECOVERY_SECONDS,
    SEED,
    SIZES,
    Client,
    OutcomeCounts,
)
from tests.e2e.chaos_model import Entry, ModelUser
from tests.e2e.up import Up, running
from tests.timeline import history_inconsistencies

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not ON_LINUX, reason="finds the processes to kill in Linux' /proc"),
]

ROUNDS = int(raw_value("test_chaos_rounds") or 6)

CLIENTS = 8
PEOPLE_OF_EACH = 4
QUIET_SECONDS = 30
"""The time until due leaves are recorded, once every process runs again."""
LONG_LIFE_SECONDS = 12
"""`segmentql up` counts consecutive deaths within 10 s of a start, and stops at 5."""
SHORT_LIVES = 3

NAMES = {"worker": "worker", "api": "API", "redis": "Redis", "postgresql": "PostgreSQL"}
"""The names in the output of `segmentql up` by the name of the process id file."""
BACKEND = "a backend of PostgreSQL"


class Killer:
    """Kills processes of a running `segmentql up`, but none so often that `up` stops."""

    def __init__(self, up: Up, counts: OutcomeCounts) -> None:
        self._up = up
        self._counts = counts
        self._random = random.Random(f"{SEED} kills")  # noqa: S311
        self._deaths = dict.fromkeys(NAMES, 0)
        self._short_lives = dict.fromkeys(NAMES, 0)
        self._died_at = dict.fromkeys(NAMES, float("-inf"))

    async def kill(self) -> None:
        """Kill one or two of the processes."""
        allowed = [name for name in NAMES if self._may_die(name)]
        for name in self._random.sample(
            [*allowed, BACKEND], self._random.randint(1, min(2, len(allowed) + 1))
        ):
            self._counts.kills[name] = self._counts.kills.get(name, 0) + 1
            if name == BACKEND:
                self._kill_backend()
                continue
            pid = self._up.pid_of(name)
            assert pid
            short = time.monotonic() - self._died_at[name] < LONG_LIFE_SECONDS
            self._short_lives[name] = self._short_lives[name] + 1 if short else 1
            self._died_at[name] = time.monotonic()
            self._deaths[name] += 1
            os.kill(pid, signal.SIGKILL)

    async def all_processes_run(self, http: httpx.AsyncClient) -> None:
        for name, deaths in self._deaths.items():
            if deaths:
                await self._up.wait_for_output(f"{NAMES[name]} restarted", times=deaths)

        async def is_ready() -> bool:
            assert self._up.process.poll() is None, self._up.output
            try:
                response = await http.get("/readyz")
            except httpx.TransportError:
                return False
            return set(response.json().values()) == {"ok"}

        await until(is_ready, seconds=RECOVERY_SECONDS)

    def _may_die(self, name: str) -> bool:
        alive_seconds = time.monotonic() - self._died_at[name]
        return self._short_lives[name] < SHORT_LIVES or alive_seconds > LONG_LIFE_SECONDS

    def _kill_backend(self) -> None:
        """Kill one backend: PostgreSQL then ends all of them, and recovers."""
        postmaster = self._up.pid_of("postgresql")
        backends = []
        for process in Path("/proc").iterdir():
            try:
                parent = re.search(r"^PPid:\t(\d+)", (process / "status").read_text(), re.M)
                title = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if parent and int(parent[1]) == postmaster and b"segmentql_service" in title:
                backends.append(int(process.name))
        with contextlib.suppress(IndexError, ProcessLookupError):  # backends come and go
            os.kill(self._random.choice(backends), signal.SIGKILL)


async def test_random_kills_under_load_keep_the_data_consistent(home: Path) -> None:
    print_counts(f"\nseed {SEED}, {ROUNDS} rounds")
    counts = OutcomeCounts()
    async with (
        running(home) as up,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{up.port}", timeout=ANSWER_SECONDS) as http,
    ):
        await up.wait_for_output("ready after")
        sql = await asyncpg.connect(superuser_url(up))
        await generate(sql, SIZES, print_counts)
        await sql.close()
        first = FIRST + CONTESTED
        people = [ModelUser(number) for number in range(first, first + CLIENTS * PEOPLE_OF_EACH)]
        clients = [Client(http, people[number::CLIENTS], counts) for number in range(CLIENTS)]

        await load_and_kill(up, clients, http, counts)

        for client in clients:
            await client.settle()
        sql = await asyncpg.connect(superuser_url(up))
        began = time.monotonic()
        await until(lambda: no_short_ttl_is_left(sql), seconds=QUIET_SECONDS)
        print_counts(f"nothing due after {time.monotonic() - began:.1f} s more")
        for client in clients:
            await client.settle()
            await client.assert_past_agrees()
        await assert_database_agrees(sql, people)
        await sql.close()
        assert await up.stop() == 0
    print_counts(f"{counts}")


async def load_and_kill(
    up: Up, clients: list[Client], http: httpx.AsyncClient, counts: OutcomeCounts
) -> None:
    """Let all clients work; kill after a random number of acknowledged changes in each round."""
    stop = asyncio.Event()
    killer = Killer(up, counts)
    chooser = random.Random(f"{SEED} rounds")  # noqa: S311
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run(stop))
        for number in range(1, ROUNDS + 1):
            await wait_for_changes(counts, chooser.randint(5, 150))
            await killer.kill()
            await killer.all_processes_run(http)
            await wait_until_recorded(up, counts)
            if number % 10 == 0:
                print_counts(f"round {number}: {counts}")
        await wait_for_changes(counts, 50)
        stop.set()


async def wait_for_changes(counts: OutcomeCounts, number: int) -> None:
    target = counts.done + number

    async def is_reached() -> bool:
        return counts.done >= target

    await until(is_reached, seconds=RECOVERY_SECONDS)


async def wait_until_recorded(up: Up, counts: OutcomeCounts) -> None:
    began = time.monotonic()
    sql = await asyncpg.connect(superuser_url(up))
    now = await sql.fetchval("SELECT now()")

    async def is_recorded() -> bool:
        statement = "SELECT NOT EXISTS (SELECT FROM memberships WHERE expires_at <= $1)"
        return bool(await sql.fetchval(statement, now))

    await until(is_recorded, seconds=QUIET_SECONDS)
    await sql.close()
    counts.record_seconds = max(counts.record_seconds, time.monotonic() - began)


async def no_short_ttl_is_left(sql: Sql) -> bool:
    """Return whether no membership with a short TTL is left; the long ones outlive the test."""
    soon = timedelta(minutes=5)
    statement = "SELECT NOT EXISTS (SELECT FROM memberships WHERE expires_at < now() + $1)"
    return bool(await sql.fetchval(statement, soon))


async def assert_database_agrees(sql: Sql, people: list[ModelUser]) -> None:
    """Compare the models of the clients with all rows."""
    assert await history_inconsistencies(sql) == {}
    history: dict[int, list[Entry]] = {}
    for number, *entry in await sql.fetch(
        """
        SELECT h.user_id, h.at, s.slug, h.operation::text, h.cause::text
        FROM history h JOIN segments s ON s.id = h.segment_id WHERE h.user_id >= $1
        """,
        people[0].number,
    ):
        history.setdefault(number, []).append(Entry(*entry))
    memberships: dict[int, dict[str, tuple[datetime, datetime | None]]] = {}
    for number, name, joined_at, expires_at in await sql.fetch(
        """
        SELECT m.user_id, s.slug, m.joined_at, m.expires_at
        FROM memberships m JOIN segments s ON s.id = m.segment_id WHERE m.user_id >= $1
        """,
        people[0].number,
    ):
        memberships.setdefault(number, {})[name] = (joined_at, expires_at)
    for person in people:
        assert sorted(history.get(person.number, [])) == sorted(person.entries)
        stays = {
            name: (stay.joined_at, stay.expires_at) for name, stay in person.memberships.items()
        }
        assert memberships.get(person.number, {}) == stays
    untouched = "SELECT count(*) FROM {} WHERE user_id <= $1"
    for table in ("history", "memberships"):
        checksum = await sql.fetchval(untouched.format(table), SIZES.users)
        assert checksum == SIZES.memberships


def superuser_url(up: Up) -> str:
    address = re.search(r"PostgreSQL on (\S+),", up.output)
    assert address
    password = json.loads((up.data / "secrets.json").read_text())["superuser"]
    return f"postgresql://postgres:{password}@{address[1]}/segmentql"


def print_counts(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
