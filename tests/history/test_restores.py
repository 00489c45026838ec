"""Cursors of readers after the database was restored, or replaced by a replica that had lagged.

Each restored database then gets more writes than were lost, so that the position of the reader's
last row exists again.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from segmentql.adapters.database import Database
from segmentql.history.settled import (
    CursorState,
    HistoryCursor,
    check_cursor,
    wait_for_settled_row,
)
from segmentql.local import LocalServers, with_database
from segmentql.local.postgres import DATABASE, SUPERUSER
from tests.backups import (
    NO_FSYNC,
    Operator,
    adopt_cluster,
    is_primary,
    operator_folder,
)
from tests.conftest import Sql, empty_tables, until
from tests.history.clusters import migrated_cluster, run_client
from tests.history.writers import join, position_of
from tests.timeline import make_segment, make_users

pytestmark = pytest.mark.slow  # each test starts a server

LOST_JOINS: Final = 40
"""More than the 32 numbers that a sequence reserves in the log."""


class Primary:
    """The server that is lost, and the cursors of a reader that has followed it."""

    def __init__(self, servers: LocalServers, operator: Operator, sql: Sql) -> None:
        self.servers = servers
        self.operator = operator
        self.sql = sql
        """A connection of the superuser."""
        self.segment_id = 0

    @property
    def url(self) -> str:
        return self.servers.superuser_url

    async def write(self, joins: int) -> HistoryCursor:
        """Let users join and leave; return the cursor of a reader that has read all changes."""
        await join_and_leave(self.sql, self.segment_id, joins)
        return await settled_row(self.servers)

    async def back_up(self, name: str) -> Path:
        """Copy the data directory of the running server; return the copy."""
        folder = Path(self.operator.path(name))
        await run_client(
            "pg_basebackup",
            f"--dbname={with_database(self.url, SUPERUSER)}",
            f"--pgdata={folder}",
            "--checkpoint=fast",
            "--no-sync",
        )
        return folder


async def join_and_leave(sql: Sql, segment_id: int, joins: int) -> None:
    for _ in range(joins):
        await join(sql, 1, segment_id)
        await sql.execute("DELETE FROM memberships WHERE user_id = 1")


async def settled_row(servers: LocalServers, database: str = DATABASE) -> HistoryCursor:
    opened = Database(servers.settings(database), name="tests", publish=lambda messages: None)
    try:
        cursor = await wait_for_settled_row(opened, seconds=0)
    finally:
        await opened.dispose()
    assert cursor is not None
    return cursor


@pytest.fixture(scope="module")
def operator() -> Iterator[Operator]:
    with operator_folder() as made:
        yield made


@pytest.fixture(scope="module")
async def archiving_servers(
    servers: LocalServers, operator: Operator
) -> AsyncIterator[LocalServers]:
    """Run another PostgreSQL, which archives its log, with a migrated database."""
    folder = operator.folder.parent / "source"
    settings = {"archive_mode": "on", "archive_command": operator.archive_command}
    async with migrated_cluster(servers, folder, NO_FSYNC | settings) as running:
        yield running


@pytest.fixture
async def primary(archiving_servers: LocalServers, operator: Operator) -> AsyncIterator[Primary]:
    """Return the server with empty tables, a segment and users."""
    sql = await asyncpg.connect(archiving_servers.superuser_url)
    await empty_tables(sql)
    opened = Primary(archiving_servers, operator, sql)
    await make_users(sql, 1)
    opened.segment_id = await make_segment(sql, "A")
    yield opened
    sql.terminate()


async def check_cursors(
    primary: Primary,
    restored: LocalServers,
    *,
    kept: HistoryCursor,
    lost: HistoryCursor,
    database: str = DATABASE,
) -> None:
    """Check the cursors on the restored server, before and after more writes than were lost."""
    sql = await asyncpg.connect(with_database(restored.superuser_url, database))
    opened = Database(restored.settings(database), name="tests", publish=lambda messages: None)

    async def states() -> tuple[CursorState, CursorState]:
        async with opened.read() as session:
            return await check_cursor(session, kept), await check_cursor(session, lost)

    try:
        assert await states() == (CursorState.VALID, CursorState.RESET)
        await join_and_leave(sql, primary.segment_id, 2 * LOST_JOINS)
        assert await position_of(sql, 1) > lost.position
        assert await states() == (CursorState.VALID, CursorState.RESET)
    finally:
        sql.terminate()
        await opened.dispose()


async def test_cursor_is_reset_after_a_restore_from_a_dump(primary: Primary) -> None:
    kept = await primary.write(3)
    dump = primary.operator.path("dump")
    await run_client("pg_dump", f"--dbname={primary.url}", "--format=custom", f"--file={dump}")
    lost = await primary.write(LOST_JOINS)

    await primary.sql.execute("CREATE DATABASE restored TEMPLATE template0")
    url = with_database(primary.url, "restored")
    await run_client("pg_restore", f"--dbname={url}", "--exit-on-error", dump)
    await check_cursors(primary, primary.servers, kept=kept, lost=lost, database="restored")
    await primary.sql.execute("DROP DATABASE restored")


async def test_cursor_is_reset_after_a_restore_from_a_base_backup(primary: Primary) -> None:
    kept = await primary.write(3)
    await primary.back_up("backup")
    lost = await primary.write(LOST_JOINS)

    restored = adopt_cluster(primary.operator, "backup", primary.servers)
    await restored.postgres.start()
    try:
        await check_cursors(primary, restored, kept=kept, lost=lost)
    finally:
        await restored.postgres.kill()


async def test_cursor_is_reset_after_a_point_in_time_recovery(primary: Primary) -> None:
    folder = await primary.back_up("recovery")
    kept = await primary.write(3)
    await primary.sql.execute("SELECT pg_create_restore_point('before')")
    lost = await primary.write(LOST_JOINS)
    segment = await primary.sql.fetchval("SELECT pg_walfile_name(pg_switch_wal())")

    await until(lambda: primary.operator.has_archived(segment))
    (folder / "recovery.signal").touch()
    settings = {
        "restore_command": f"cp {primary.operator.archive}/%f %p",
        "recovery_target_name": "before",
        "recovery_target_action": "promote",
    }
    restored = adopt_cluster(primary.operator, folder.name, primary.servers, NO_FSYNC | settings)
    restored.postgres.launch()
    try:
        await until(lambda: is_primary(restored))
        await check_cursors(primary, restored, kept=kept, lost=lost)
    finally:
        await restored.postgres.kill()


async def test_cursor_is_reset_after_a_lagging_replica_is_promoted(primary: Primary) -> None:
    folder = await primary.back_up("replica")
    (folder / "standby.signal").touch()
    replica = adopt_cluster(primary.operator, folder.name, primary.servers)
    replica.postgres.launch()
    try:
        await until(replica.postgres.program.is_ready)
        sql = await asyncpg.connect(replica.superuser_url)
        conninfo = with_database(primary.url, SUPERUSER)
        await sql.execute(f"ALTER SYSTEM SET primary_conninfo = '{conninfo}'")
        await sql.execute("SELECT pg_reload_conf()")
        kept = await primary.write(3)

        async def has_caught_up() -> bool:
            return bool(await position_of(sql, 1) == kept.position)

        await until(has_caught_up)
        await sql.execute("ALTER SYSTEM RESET primary_conninfo")
        await sql.execute("SELECT pg_reload_conf()")
        await until(lambda: has_no_receiver(sql))
        lost = await primary.write(LOST_JOINS)
        assert await sql.fetchval("SELECT pg_promote()")
        sql.terminate()
        await check_cursors(primary, replica, kept=kept, lost=lost)
    finally:
        await replica.postgres.kill()


async def has_no_receiver(sql: Sql) -> bool:
    return bool(await sql.fetchval("SELECT count(*) = 0 FROM pg_stat_wal_receiver"))
