"""Migrations 0008 and 0009 keep every row, in order, while readers and writers continue."""

import asyncio
import sys

import pytest
from sqlalchemy.exc import SQLAlchemyError

from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.conftest import environment, until
from tests.online_upgrade.checks import (
    FIRST_NEW_POSITION,
    MIGRATION,
    MIGRATION_WAITS,
    assert_index_is_complete,
    assert_upgraded,
)
from tests.online_upgrade.conftest import Connect
from tests.online_upgrade.previous_version import make_old_database, upgrade
from tests.online_upgrade.traffic import (
    make_partitions,
    traffic_of_the_new_version,
    traffic_of_the_previous_version,
)

CHUNK_ROWS = 20_000
"""The rows that migration 0009 numbers in one transaction."""

# The lock of `make_history_partitions`, which migration 0009 takes for each chunk.
TAKE_CHUNK_LOCK = "SELECT pg_advisory_lock(hashtextextended('make_history_partitions', 0))"
RELEASE_CHUNK_LOCK = "SELECT pg_advisory_unlock(hashtextextended('make_history_partitions', 0))"


async def interrupt_after_one_chunk(settings: Settings, connect: Connect) -> None:
    """Start the migration, and terminate its session between the first two chunks."""
    sql, first, second = [await connect() for _ in range(3)]
    await second.execute("SET lock_timeout = 0")
    await first.execute(TAKE_CHUNK_LOCK)
    migration = asyncio.create_task(upgrade(settings))
    await until(lambda: sql.fetchval(MIGRATION_WAITS, "advisory"))
    # This waits in the queue behind the migration, whose first chunk comes next.
    queued = asyncio.create_task(second.execute(TAKE_CHUNK_LOCK))
    await until(
        lambda: sql.fetchval(
            "SELECT count(*) > 0 FROM pg_locks"
            " WHERE locktype = 'advisory' AND NOT granted AND pid = $1",
            second.get_server_pid(),
        )
    )
    await first.execute(RELEASE_CHUNK_LOCK)
    await queued
    await until(lambda: sql.fetchval(MIGRATION_WAITS, "advisory"))
    await sql.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {MIGRATION}")
    with pytest.raises(SQLAlchemyError):
        await migration
    numbered = await sql.fetchval(
        "SELECT count(*) FROM history WHERE position < $1", FIRST_NEW_POSITION
    )
    # All entries of one time and user are in one chunk.
    assert CHUNK_ROWS <= numbered < CHUNK_ROWS + 3
    assert await sql.fetchval("SELECT version_num FROM alembic_version") == "0008"
    await second.execute(RELEASE_CHUNK_LOCK)


# It takes some seconds, because it needs more than two chunks of migration 0009.
async def test_upgrade_keeps_every_row_while_clients_continue(
    servers: LocalServers, blank: Settings, connect: Connect
) -> None:
    sql = await connect()
    await make_old_database(blank, sql, rows=2 * CHUNK_ROWS + 5000)
    async with traffic_of_the_previous_version(servers, connect) as (traffic, tasks):
        await interrupt_after_one_chunk(blank, connect)
        partitions = tasks.create_task(make_partitions(await connect(servers.service_url), 2))
        await upgrade(blank)
        await partitions
        async with traffic_of_the_new_version(blank, traffic, tasks):
            await traffic.have_worked(2)
            traffic.stopped.set()
    await assert_upgraded(sql)
    await sql.execute("SELECT make_history_partitions('2031-05-01', 1)")
    await assert_index_is_complete(sql)


@pytest.mark.slow
async def test_upgrade_of_a_million_entries_survives_a_killed_process(
    servers: LocalServers, blank: Settings, connect: Connect
) -> None:
    sql = await connect()
    await make_old_database(blank, sql, rows=1_000_000)
    old_traffic = traffic_of_the_previous_version(servers, connect, long_reads=True)
    async with old_traffic as (traffic, tasks):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "segmentql", "migrate", env=environment(blank)
        )

        async def has_numbered() -> bool:
            numbered: bool = await sql.fetchval(
                "SELECT version_num = '0008' FROM alembic_version"
            ) and await sql.fetchval(
                "SELECT EXISTS (SELECT FROM history WHERE position < $1)", FIRST_NEW_POSITION
            )
            return numbered

        await until(has_numbered, seconds=120)
        process.kill()
        await process.wait()
        assert await sql.fetchval("SELECT version_num FROM alembic_version") == "0008"
        # No partition is made here: to move 200,000 entries out of DEFAULT locks readers out for
        # longer than they wait, with or without a migration.
        await upgrade(blank)
        async with traffic_of_the_new_version(blank, traffic, tasks):
            await traffic.have_worked(10)
            traffic.stopped.set()
    await assert_upgraded(sql)
