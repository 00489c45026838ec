"""Separate databases for single tests."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from segmentql.local import LocalServers, with_database
from segmentql.settings import Settings
from segmentql.tables import Base
from tests.conftest import Sql, make_database


@asynccontextmanager
async def blank_database(servers: LocalServers) -> AsyncIterator[Settings]:
    """Create an empty database, and yield the settings of a service that uses it."""
    name = f"blank_{uuid.uuid4().hex}"
    await make_database(servers, name)
    try:
        yield servers.settings(name)
    finally:
        connection = await asyncpg.connect(with_database(servers.superuser_url, "postgres"))
        await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await connection.close()


async def every_row(sql: Sql) -> dict[str, list[str]]:
    """Return the rows of every table. Sequences are left out, because they never go back."""
    return {
        table: [
            row["text"]
            for row in await sql.fetch(f"SELECT to_json(t)::text AS text FROM {table} t ORDER BY 1")
        ]
        for table in Base.metadata.tables
    }
