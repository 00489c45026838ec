"""Databases of the benchmark's own PostgreSQL: made once, kept for the next run, cloned."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import asyncpg

from bench.data import VERSION, Sizes, generate
from segmentql.adapters import migrations
from segmentql.local import LocalServers, with_database

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

PREFIX = "bench"
ALEMBIC = Path(__file__).parents[1] / "alembic"


async def filled(servers: LocalServers, sizes: Sizes, say: Callable[[str], None]) -> str:
    """The name of a database that holds `sizes`; generated unless an earlier run did."""
    schema = _schema_digest()
    name = f"{PREFIX}_{schema}_v{VERSION}_{sizes.users}_{sizes.memberships}_{sizes.segments}"
    part = f"{PREFIX}_part"
    async with connected(servers, "postgres") as server:
        for old in await server.fetch("SELECT datname FROM pg_database"):
            outdated = not old["datname"].startswith(f"{PREFIX}_{schema}_v{VERSION}_")
            if old["datname"].startswith(f"{PREFIX}_") and outdated:
                await server.execute(f'DROP DATABASE "{old["datname"]}"')
        if await server.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname=$1)", name):
            return name
        say(f"generating {sizes.users:,} users with {sizes.memberships:,} memberships")
        await server.execute(f"CREATE DATABASE {part} OWNER segmentql_owner TEMPLATE template0")
        await asyncio.to_thread(migrations.upgrade, servers.settings(part))
        async with connected(servers, part) as inside:
            await generate(inside, sizes, say)
        # Under its own name only when it is whole: a run that was stopped leaves none of it.
        await server.execute(f"ALTER DATABASE {part} RENAME TO {name}")
    return name


@asynccontextmanager
async def cloned(servers: LocalServers, name: str) -> AsyncIterator[str]:
    """A copy of a database that nobody is connected to, to be written to; dropped at the end."""
    clone = f"{PREFIX}_clone"
    async with connected(servers, "postgres") as server:
        await server.execute(f"DROP DATABASE IF EXISTS {clone}")
        await server.execute(
            f"CREATE DATABASE {clone} TEMPLATE {name} OWNER segmentql_owner STRATEGY file_copy"
        )
        await server.execute("CHECKPOINT")  # its writes are nobody's whom we measure
    yield clone
    async with connected(servers, "postgres") as server:  # which may have been restarted
        await server.execute(f"DROP DATABASE {clone} WITH (FORCE)")


@asynccontextmanager
async def connected(servers: LocalServers, database: str) -> AsyncIterator[Connection]:
    """A superuser's connection."""
    connection = await asyncpg.connect(with_database(servers.superuser_url, database))
    try:
        yield connection
    finally:
        await connection.close()


def _schema_digest() -> str:
    """What the migrations would make, in eight characters: data of another schema are useless."""
    digest = hashlib.sha256()
    for file in sorted([*ALEMBIC.glob("versions/*.py"), *ALEMBIC.glob("*.sql")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]
