"""Connections of the service's role and of the owner, and a statement that adds a membership."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest

from segmentql.local import LocalServers, with_database
from segmentql.settings import Settings
from tests.conftest import Sql


@pytest.fixture
async def service(servers: LocalServers, settings: Settings, sql: Sql) -> AsyncIterator[Sql]:
    """Connect as the service's role to the database that `sql` emptied."""
    connection = await asyncpg.connect(with_database(servers.service_url, "run"))
    yield connection
    await connection.close()


@pytest.fixture
async def owner(servers: LocalServers, settings: Settings, sql: Sql) -> AsyncIterator[Sql]:
    """Connect as the role that owns the tables."""
    connection = await asyncpg.connect(with_database(servers.owner_url, "run"))
    yield connection
    await connection.close()


JOIN = """
INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, expires_at, cause, actor)
VALUES ($1, $2, $3, $3, $4, $5, $6) RETURNING id
"""
AT = datetime(2026, 3, 4, 5, 6, 7, 890123, UTC)
