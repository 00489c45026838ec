"""Readers and writers of both versions that continue during the upgrade."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from segmentql.adapters.database import Database
from segmentql.local import LocalServers
from segmentql.memberships.service import update_user_segments
from segmentql.principal import Actor
from segmentql.settings import Settings
from tests.conftest import Sql, until
from tests.online_upgrade.conftest import Connect
from tests.online_upgrade.previous_version import (
    EXCLUDED_USERS,
    OLD_DELETE_USER,
    OLD_LOCK_AND_STORE_USER,
    OLD_UPDATE_MEMBERSHIPS,
)

OLD_WRITERS = range(1_000_001, 1_000_004)
NEW_WRITERS = range(2_000_001, 2_000_003)


class Traffic:
    """Readers and writers that repeat their work until they are stopped. An error ends the test."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self.counts: dict[str, int] = {}

    async def repeat(self, name: str, work: Callable[[int], Coroutine[Any, Any, Any]]) -> None:
        for number in itertools.count():
            if self.stopped.is_set():
                return
            await work(number)
            self.counts[name] = number + 1

    async def have_worked(self, times: int) -> None:
        """Wait until each has worked `times` more times."""
        goal = {name: count + times for name, count in self.counts.items()}

        async def reached() -> bool:
            return all(self.counts[name] >= count for name, count in goal.items())

        await until(reached)


@asynccontextmanager
async def traffic_of_the_previous_version(
    servers: LocalServers, connect: Connect, *, long_reads: bool = False
) -> AsyncIterator[tuple[Traffic, asyncio.TaskGroup]]:
    """Let writers and readers with the statements of the previous version work meanwhile."""
    traffic = Traffic()

    async def write(connection: Sql, user_id: int, number: int) -> None:
        async with connection.transaction():
            await connection.execute(OLD_LOCK_AND_STORE_USER, user_id)
            if number % 10 == 9:
                await connection.execute(OLD_DELETE_USER, user_id)
            else:
                add = 1 + number % 2
                await connection.execute(OLD_UPDATE_MEMBERSHIPS, user_id, add, 3 - add)

    async def read(connection: Sql, _: int) -> None:
        await connection.fetchval("SELECT count(*) FROM history WHERE user_id = 1")
        await connection.fetchval("SELECT count(*) FROM memberships m JOIN segments s ON true")

    async def read_long(connection: Sql, _: int) -> None:
        """Hold a lock for longer than the first attempts of the migration wait for it."""
        await connection.fetchval("SELECT max(at) FROM history, pg_sleep(0.25)")
        await connection.fetchval("SELECT pg_sleep(0.1)")

    async with asyncio.TaskGroup() as tasks:
        for user_id in OLD_WRITERS:
            writer = await connect(servers.service_url)
            tasks.create_task(
                traffic.repeat(
                    f"writer {user_id}",
                    lambda n, c=writer, u=user_id: write(c, u, n),  # type: ignore[misc]
                )
            )
        readers = {"reader": read, **({"long reader": read_long} if long_reads else {})}
        for name, work in readers.items():
            reader = await connect(servers.service_url)
            tasks.create_task(
                traffic.repeat(name, lambda n, c=reader, w=work: w(c, n))  # type: ignore[misc]
            )
        await until(lambda: _all_counted(traffic, len(OLD_WRITERS) + len(readers)))
        try:
            yield traffic, tasks
        finally:
            traffic.stopped.set()


async def _all_counted(traffic: Traffic, number: int) -> bool:
    return len(traffic.counts) == number


@asynccontextmanager
async def traffic_of_the_new_version(
    settings: Settings, traffic: Traffic, tasks: asyncio.TaskGroup
) -> AsyncIterator[None]:
    """Let writers of this version work too, which start after the upgrade."""
    database = Database(settings, name="new version", publish=lambda _: None)

    async def write(user_id: int, number: int) -> None:
        slugs = ("S1", "S2") if number % 2 else ("S2", "S1")
        for changed_user_id in (user_id, 1 + number % EXCLUDED_USERS):
            await database.transaction(
                lambda session: update_user_segments(
                    session,
                    user_id=changed_user_id,  # noqa: B023 - awaited in the same round
                    add=slugs[:1],
                    remove=slugs[1:],
                    actor=Actor("new", "abcdefghijkl"),
                )
            )

    number_before = len(traffic.counts)
    for user_id in NEW_WRITERS:
        tasks.create_task(traffic.repeat(f"new {user_id}", lambda n, u=user_id: write(u, n)))  # type: ignore[misc]
    await until(lambda: _all_counted(traffic, number_before + len(NEW_WRITERS)))
    yield
    await database.dispose()


async def make_partitions(connection: Sql, months: int) -> None:
    """Make the partitions of the oldest months, as the scheduler does, with its retries."""
    for month in range(months):
        while True:
            try:
                await connection.execute(
                    "SELECT make_history_partitions("
                    "(now() - make_interval(days => 155 - 31 * $1))::date, 1)",
                    month,
                )
                break
            except (asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError):
                continue
