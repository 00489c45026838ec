"""Entries of before, during and after migrations 0008 and 0009 get their positions in order."""

import asyncio

import pytest

from segmentql.adapters import migrations
from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.conftest import until
from tests.online_upgrade.checks import (
    FIRST_NEW_POSITION,
    MIGRATION_WAITS,
    assert_logs_are_complete,
    assert_upgraded,
)
from tests.online_upgrade.conftest import Connect
from tests.online_upgrade.previous_version import (
    EXCLUDED_USERS,
    OLD_DELETE_USER,
    OLD_LOCK_AND_STORE_USER,
    OLD_UPDATE_MEMBERSHIPS,
    make_old_database,
    upgrade,
)


async def test_downgrade_to_0007_and_upgrade_again_keeps_every_entry(
    blank: Settings, connect: Connect
) -> None:
    sql = await connect()
    await make_old_database(blank, sql, rows=100)
    await upgrade(blank)
    await sql.execute("DELETE FROM memberships WHERE user_id = 1")
    assert await sql.fetchval("SELECT max(position) FROM history") == FIRST_NEW_POSITION
    await asyncio.to_thread(migrations.downgrade, blank, "0007")
    await sql.execute("DELETE FROM memberships WHERE user_id = 3")
    await upgrade(blank)
    await sql.execute("DELETE FROM memberships WHERE user_id = 5")
    await assert_upgraded(sql)
    assert await sql.fetchval("SELECT max(position) FROM history") == FIRST_NEW_POSITION


async def test_writers_that_waited_for_the_migration_get_positions(
    servers: LocalServers, blank: Settings, connect: Connect
) -> None:
    sql, blocker = await connect(), await connect()
    await make_old_database(blank, sql, rows=4)
    writers = [await connect(servers.service_url) for _ in range(3)]
    for connection in writers:  # The sessions have the previous version of each function and plan.
        await connection.execute("SET lock_timeout = '20s'")
        await connection.execute(OLD_LOCK_AND_STORE_USER, 7)
        await connection.execute(OLD_UPDATE_MEMBERSHIPS, 7, 1, 2)
        await connection.execute(OLD_DELETE_USER, 7)
    before = await sql.fetchval("SELECT count(*) FROM history")
    # The migration has all its locks when it waits for this one, at its end.
    await blocker.execute("BEGIN; LOCK TABLE alembic_version IN SHARE MODE")
    migration = asyncio.create_task(upgrade(blank, "0008"))
    await until(lambda: sql.fetchval(MIGRATION_WAITS, "relation"))
    waiting = [
        asyncio.create_task(writers[0].execute(OLD_LOCK_AND_STORE_USER, 8)),
        # These wait for `history` and for `memberships`.
        asyncio.create_task(writers[1].execute(OLD_UPDATE_MEMBERSHIPS, 9, 1, 2)),
        asyncio.create_task(writers[2].execute("DELETE FROM memberships WHERE user_id = 1")),
    ]
    await until(
        lambda: blocker.fetchval(
            "SELECT count(*) = 3 FROM pg_stat_activity WHERE usename = 'segmentql_service' "
            "AND datname = current_database() AND wait_event_type = 'Lock'"
        )
    )
    await blocker.execute("COMMIT")
    await asyncio.gather(migration, *waiting)
    positions = await sql.fetch(
        "SELECT position FROM history WHERE position IS NOT NULL ORDER BY position"
    )
    assert [row["position"] for row in positions] == [FIRST_NEW_POSITION, FIRST_NEW_POSITION + 1]
    assert await sql.fetchval("SELECT count(*) FROM history") == before + 2


async def test_entry_of_the_previous_trigger_gets_its_position_by_default(
    blank: Settings, connect: Connect
) -> None:
    sql = await connect()
    await make_old_database(blank, sql, rows=4)
    old_function = await sql.fetchval("SELECT pg_get_functiondef('record_memberships'::regproc)")
    await upgrade(blank)
    assert "position" not in old_function
    await sql.execute(old_function)
    await sql.execute("DELETE FROM memberships WHERE user_id IN (1, 2)")
    positions = await sql.fetch(
        "SELECT position FROM history WHERE operation = 'LEFT' AND segment_id = 3 ORDER BY 1"
    )
    assert [row["position"] for row in positions] == [FIRST_NEW_POSITION, FIRST_NEW_POSITION + 1]


@pytest.mark.parametrize(("end", "operation"), [("COMMIT", "ADMITTED"), ("ROLLBACK", "EXCLUDED")])
async def test_admission_during_the_migration_follows_its_exclusion(
    blank: Settings, connect: Connect, end: str, operation: str
) -> None:
    sql, admitting = await connect(), await connect()
    await make_old_database(blank, sql, rows=4)
    await upgrade(blank, "0008")
    await admitting.execute("BEGIN; DELETE FROM exclusions WHERE user_id = 5")
    migration = asyncio.create_task(upgrade(blank))
    await until(lambda: sql.fetchval("SELECT count(*) = $1 FROM exclusion_log", EXCLUDED_USERS - 1))
    await admitting.execute(end)
    await migration
    entries = await sql.fetch("SELECT operation::text FROM exclusion_log WHERE user_id = 5")
    assert [row["operation"] for row in entries] == [operation]
    await assert_logs_are_complete(sql)
