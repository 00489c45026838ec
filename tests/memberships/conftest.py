"""A fixture for a second session, as a superuser."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from segmentql.local import LocalServers, with_database
from tests.conftest import Sql


@pytest.fixture
async def other(servers: LocalServers, sql: Sql) -> AsyncIterator[Sql]:
    """Open another session for conflicting locks."""
    connection = await asyncpg.connect(with_database(servers.superuser_url, "run"))
    yield connection
    await connection.close()
