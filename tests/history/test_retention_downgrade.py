"""The migration of the retention is not undone after history was dropped."""

import asyncio
from typing import Final

import pytest

from segmentql.adapters import migrations
from segmentql.errors import DowngradeRefused
from segmentql.settings import Settings
from tests.conftest import Sql, until

WAITS_FOR_TABLE: Final = """
SELECT EXISTS (
    SELECT FROM pg_locks WHERE NOT granted AND relation = 'dropped_history'::regclass
)
"""


async def test_downgrade_is_refused_after_history_was_dropped(blank: Settings, inside: Sql) -> None:
    await asyncio.to_thread(migrations.upgrade, blank)
    await inside.execute("UPDATE dropped_history SET earliest_at = '2024-03-01Z'")
    with pytest.raises(DowngradeRefused, match="history before 2024-03-01"):
        await asyncio.to_thread(migrations.downgrade, blank, "0019")
    # The later migrations are undone, and this one is as it was.
    assert await inside.fetchval("SELECT version_num FROM alembic_version") == "0020"
    assert await inside.fetchval("SELECT earliest_at > '-infinity' FROM dropped_history")
    await inside.execute("UPDATE dropped_history SET earliest_at = '-infinity'")
    await asyncio.to_thread(migrations.downgrade, blank, "0019")


async def test_downgrade_waits_for_a_transaction_that_drops_history(
    blank: Settings, inside: Sql
) -> None:
    await asyncio.to_thread(migrations.upgrade, blank)

    async def waits() -> bool:
        return bool(await inside.fetchval(WAITS_FOR_TABLE))

    async with inside.transaction():
        await inside.execute("SELECT prune_history('2024-03-01Z')")
        downgrade = asyncio.create_task(asyncio.to_thread(migrations.downgrade, blank, "0019"))
        await until(waits)
    with pytest.raises(DowngradeRefused, match="history before 2024-03-01"):
        await downgrade
    assert await inside.fetchval("SELECT version_num FROM alembic_version") == "0020"
