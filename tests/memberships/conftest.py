"""Fixtures for a second session, as a superuser, and for clients with API keys."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from segmentql.adapters.database import Database
from segmentql.local import LocalServers, with_database
from tests.conftest import Api, Sql
from tests.keys.clients import KeyClient, make_client


@pytest.fixture
async def other(servers: LocalServers, sql: Sql) -> AsyncIterator[Sql]:
    """Open another session for conflicting locks."""
    connection = await asyncpg.connect(with_database(servers.superuser_url, "run"))
    yield connection
    await connection.close()


@pytest.fixture
async def ada(auth_api: Api, database: Database) -> KeyClient:
    return await make_client(auth_api, database, "ada")


@pytest.fixture
async def bob(auth_api: Api, database: Database) -> KeyClient:
    return await make_client(auth_api, database, "bob")
