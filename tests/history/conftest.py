"""Fixtures of tests of history: writers on their own connections, and a segment with users."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from segmentql.local import LocalServers, with_database
from tests.conftest import Sql
from tests.history.writers import Connect
from tests.timeline import make_segment, make_users


@pytest.fixture
async def connect(servers: LocalServers, sql: Sql) -> AsyncIterator[Connect]:
    """Return a function that opens a connection of the service's role."""
    async with AsyncExitStack() as stack:

        async def open_connection() -> Sql:
            connection = await asyncpg.connect(with_database(servers.service_url, "run"))
            stack.callback(connection.terminate)
            return connection

        yield open_connection


@pytest.fixture
async def segment_id(sql: Sql) -> int:
    """Create a segment and the users 1 to 9, and return the id of the segment."""
    await make_users(sql, *range(1, 10))
    return await make_segment(sql, "A")
