"""Fixtures of tests of the feed: a reader, an application of its own, and writers."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from segmentql.adapters.concurrency import ConcurrencyLimit
from segmentql.adapters.database import Database
from segmentql.feed.reader import FeedReader
from segmentql.local import LocalServers, with_database
from segmentql.settings import Settings
from tests.conftest import Api, Sql, serving
from tests.history.writers import Connect
from tests.timeline import make_segment, make_users

LIMIT = ConcurrencyLimit(per_process=500, per_key=200)


@pytest.fixture
async def reader(database: Database) -> AsyncIterator[FeedReader]:
    """Return a reader without hints."""
    opened = FeedReader(database, LIMIT)
    yield opened
    await opened.close()


@pytest.fixture
async def feed_api(settings: Settings, sql: Sql) -> AsyncIterator[Api]:
    """Run an application that has not read the history of another test."""
    async with serving(settings) as api:
        yield api


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
