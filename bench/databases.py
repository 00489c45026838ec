"""The databases of the benchmark: generated once, reused by the next run, and cloned."""

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


async def ensure_database(
    servers: LocalServers, sizes: Sizes, print_line: Callable[[str], None]
) -> str:
    """Return the name of a database with a data set, and generate the database if it is missing."""
    schema = _schema_digest()
    name = f"{PREFIX}_{schema}_v{VERSION}_{sizes.users}_{sizes.memberships}_{sizes.segments}"
    temporary = f"{PREFIX}_part"
    async with superuser_connection(servers, "postgres") as server:
        for old in await server.fetch("SELECT datname FROM pg_database"):
            is_outdated = not old["datname"].startswith(f"{PREFIX}_{schema}_v{VERSION}_")
            if old["datname"].startswith(f"{PREFIX}_") and is_outdated:
                await server.execute(f'DROP DATABASE "{old["datname"]}"')
        if await server.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname=$1)", name):
            return name
        print_line(f"generating {sizes.users:,} users with {sizes.memberships:,} memberships")
        await server.execute(
            f"CREATE DATABASE {temporary} OWNER segmentql_owner TEMPLATE template0"
        )
        await asyncio.to_thread(migrations.upgrade, servers.settings(temporary))
        async with superuser_connection(servers, temporary) as connection:
            await generate(connection, sizes, print_line)
        # Renamed when it is complete, so that a stopped run leaves no partial data set.
        await server.execute(f"ALTER DATABASE {temporary} RENAME TO {name}")
    return name


@asynccontextmanager
async def cloned_database(servers: LocalServers, name: str) -> AsyncIterator[str]:
    """Create a writable copy of a database without connections, and drop it at the exit."""
    clone = f"{PREFIX}_clone"
    async with superuser_connection(servers, "postgres") as server:
        await server.execute(f"DROP DATABASE IF EXISTS {clone}")
        await server.execute(
            f"CREATE DATABASE {clone} TEMPLATE {name} OWNER segmentql_owner STRATEGY file_copy"
        )
        await server.execute("CHECKPOINT")  # so that its writes do not disturb the measurements
    yield clone
    async with superuser_connection(servers, "postgres") as server:  # PostgreSQL may have restarted
        await server.execute(f"DROP DATABASE {clone} WITH (FORCE)")


@asynccontextmanager
async def superuser_connection(servers: LocalServers, database: str) -> AsyncIterator[Connection]:
    """Open a connection of the superuser."""
    connection = await asyncpg.connect(with_database(servers.superuser_url, database))
    try:
        yield connection
    finally:
        await connection.close()


def _schema_digest() -> str:
    """Return a hash of the migrations, 8 characters, which identifies the schema of a database."""
    digest = hashlib.sha256()
    for file in sorted([*ALEMBIC.glob("versions/*.py"), *ALEMBIC.glob("*.sql")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]
