"""The migration of the retention is not undone after history was dropped."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from alembic.util import CommandError

from segmentql.adapters import migrations
from segmentql.local import LocalServers, with_database
from segmentql.settings import Settings
from tests.databases import blank_database


@pytest.fixture
async def blank(servers: LocalServers) -> AsyncIterator[Settings]:
    async with blank_database(servers) as settings:
        yield settings


async def test_downgrade_is_refused_after_history_was_dropped(
    servers: LocalServers, blank: Settings
) -> None:
    await asyncio.to_thread(migrations.upgrade, blank)
    url = with_database(servers.superuser_url, blank.database_url.rpartition("/")[2])
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("UPDATE dropped_history SET earliest_at = '2024-03-01Z'")
        with pytest.raises(CommandError, match="history before 2024-03-01"):
            await asyncio.to_thread(migrations.downgrade, blank, "0019")
        # The later migrations are undone, and this one is as it was.
        assert await connection.fetchval("SELECT version_num FROM alembic_version") == "0020"
        assert await connection.fetchval("SELECT earliest_at IS NOT NULL FROM dropped_history")
        await connection.execute("UPDATE dropped_history SET earliest_at = '-infinity'")
    finally:
        await connection.close()
    await asyncio.to_thread(migrations.downgrade, blank, "0019")
