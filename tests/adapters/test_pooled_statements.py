"""Statements outside a transaction reach one server connection of PgBouncer, under contention.

asyncpg parses a statement without a name again when it executes it, in the same message group. If
Parse and Execute could reach two server connections, the second one would execute a statement of
another client, or none.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import asyncpg
import pytest
from asyncpg.exceptions import PostgresError
from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.pooler import behind_pooler, pgbouncer, pgbouncer_version

# Each test starts a PgBouncer and opens fifty connections.
pytestmark = pytest.mark.slow

CLIENTS = 50
SERVERS = 3
STATEMENTS = 10


@dataclass(frozen=True)
class Pooler:
    """A running PgBouncer."""

    url: str
    supports_names: bool
    """Whether it supports statements with names."""


Fetch = Callable[[ReadSession, str], Awaitable[object]]


async def by_driver(session: ReadSession, statement: str) -> object:
    return (await session.execute(text(statement))).scalar_one()


async def by_sqlalchemy(session: ReadSession, statement: str) -> object:
    return (await (await session.connection()).execute(text(statement))).scalar_one()


@pytest.fixture(params=["without names", "with names"])
async def pooler(
    request: pytest.FixtureRequest, servers: LocalServers, settings: Settings
) -> AsyncIterator[Pooler]:
    """Run a PgBouncer that supports named statements, or does not."""
    supports_names = request.param == "with names"
    options = {"default_pool_size": str(SERVERS)}
    if pgbouncer_version() >= (1, 21):
        options["max_prepared_statements"] = "200" if supports_names else "0"
    elif supports_names:
        pytest.skip("PgBouncer supports named statements from version 1.21 on")
    name = settings.database_url.rpartition("/")[2]
    async with pgbouncer(servers.settings(name).database_url, **options) as url:
        yield Pooler(url, supports_names)


@pytest.mark.parametrize("fetch", [by_driver, by_sqlalchemy])
async def test_statements_of_many_clients_reach_one_server_connection_each(
    settings: Settings, pooler: Pooler, fetch: Fetch
) -> None:
    behind = behind_pooler(settings, pooler.url).model_copy(
        update={"database_pool_size": CLIENTS, "statement_timeout_seconds": 60}
    )
    database = Database(behind, name="tests", publish=lambda _: None)
    servers_of_clients: list[set[object]] = []

    async def client(number: int) -> None:
        used: set[object] = set()
        async with database.read() as session:
            # The driver looks up this type, with a statement of its own in between.
            names = await fetch(
                session, "SELECT CAST(ARRAY['a'] AS information_schema.sql_identifier[])"
            )
            assert names == ["a"]
            for statement in range(STATEMENTS):
                value = STATEMENTS * number + statement
                assert await fetch(session, f"SELECT {value}") == value
                used.add(await fetch(session, f"SELECT pg_backend_pid() + 0 * {value}"))
        servers_of_clients.append(used)

    try:
        await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    finally:
        await database.dispose()
    assert len(set.union(*servers_of_clients)) == SERVERS
    assert max(len(used) for used in servers_of_clients) > 1  # clients change between servers


async def test_named_statements_need_the_support_of_the_pooler(pooler: Pooler) -> None:
    """The same contention separates the preparation of a named statement from its execution."""
    plain = pooler.url.replace("postgresql+asyncpg://", "postgresql://")
    connections = await asyncio.gather(
        *(asyncpg.connect(plain, timeout=30) for _ in range(CLIENTS))
    )

    async def count_failures(connection: "asyncpg.Connection[asyncpg.Record]", number: int) -> int:
        failures = 0
        for statement in range(STATEMENTS):
            value = STATEMENTS * number + statement
            for _ in range(2):  # the second execution uses the statement of the cache
                try:
                    failures += await connection.fetchval(f"SELECT {value}") != value
                except PostgresError:
                    failures += 1
        return failures

    failures = await asyncio.gather(
        *(count_failures(connection, number) for number, connection in enumerate(connections))
    )
    await asyncio.gather(*(connection.close() for connection in connections))
    assert (sum(failures) == 0) == pooler.supports_names
