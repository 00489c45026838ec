"""Separate databases for single tests."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from segmentql.local import LocalServers, with_database
from segmentql.settings import Settings
from tests.conftest import make_database


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
