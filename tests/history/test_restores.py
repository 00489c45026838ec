"""Cursors of readers after the database was restored, or replaced by a replica that had lagged.

Each restored database then gets more writes than were lost, so that the position of the reader's
last row exists again.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator
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
from tests.conftest import Sql, empty_tables, until
from tests.history.clusters import ACCOUNT, cluster_servers, migrated_cluster, run_client
from tests.history.writers import join, position_of
from tests.timeline import make_segment, make_users

pytestmark = pytest.mark.slow  # each test starts a server

LOST_JOINS: Final = 40
"""More than the 32 numbers that a sequence reserves in the log."""


class Primary:
    """The server that is lost, and the cursors of a reader that has followed it."""

    def __init__(self, servers: LocalServers, folder: Path, sql: Sql) -> None:
        self.servers = servers
        self.folder = folder
        self.archive = folder / "archive"
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
        """Copy the running cluster into a new data folder; return the folder."""
        folder = self.folder / name
        (folder / "postgres").mkdir(parents=True)
        shutil.copy(self.folder / "data" / "secrets.json", folder)
        own(folder / "postgres")
        await run_client(
            "pg_basebackup",
            f"--dbname={with_database(self.url, SUPERUSER)}",
            f"--pgdata={folder / 'postgres' / 'data'}",
            "--checkpoint=fast",
            "--no-sync",
        )
        return folder


def own(path: Path) -> None:
    """Give a folder to the account of the servers."""
    path.chmod(0o700)
    if ACCOUNT:
        shutil.chown(path, ACCOUNT.user_id, ACCOUNT.group_id)


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
async def archiving_servers(servers: LocalServers) -> AsyncIterator[LocalServers]:
    """Run another PostgreSQL, which archives its log, with a migrated database."""
    with tempfile.TemporaryDirectory(prefix="segmentql-restore-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        archive = folder / "archive"
        archive.mkdir()
        own(archive)
        settings = {
            "fsync": "off",  # the machine does not crash
            "archive_mode": "on",
            "archive_command": f"cp %p {archive}/%f",
        }
        async with migrated_cluster(servers, folder / "data", settings) as running:
            yield running


@pytest.fixture
async def primary(archiving_servers: LocalServers) -> AsyncIterator[Primary]:
    """Return the server with empty tables, a segment and users."""
    folder = archiving_servers.postgres.program.pid_file.parents[2]
    sql = await asyncpg.connect(archiving_servers.superuser_url)
    await empty_tables(sql)
    opened = Primary(archiving_servers, folder, sql)
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
    dump = primary.archive / "dump"
    await run_client("pg_dump", f"--dbname={primary.url}", "--format=custom", f"--file={dump}")
    lost = await primary.write(LOST_JOINS)

    await primary.sql.execute("CREATE DATABASE restored TEMPLATE template0")
    url = with_database(primary.url, "restored")
    await run_client("pg_restore", f"--dbname={url}", "--exit-on-error", str(dump))
    await check_cursors(primary, primary.servers, kept=kept, lost=lost, database="restored")
    await primary.sql.execute("DROP DATABASE restored")


async def test_cursor_is_reset_after_a_restore_from_a_base_backup(primary: Primary) -> None:
    kept = await primary.write(3)
    folder = await primary.back_up("backup")
    lost = await primary.write(LOST_JOINS)

    restored = cluster_servers(primary.servers, folder, {"fsync": "off"})
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

    async def is_archived() -> bool:
        return bool((primary.archive / segment).exists())

    await until(is_archived)
    signal = folder / "postgres" / "data" / "recovery.signal"
    signal.touch()
    restored = cluster_servers(
        primary.servers,
        folder,
        {
            "fsync": "off",
            "restore_command": f"cp {primary.archive}/%f %p",
            "recovery_target_name": "before",
            "recovery_target_action": "promote",
        },
    )
    restored.postgres.launch()
    try:
        await until(lambda: is_primary(restored))
        await check_cursors(primary, restored, kept=kept, lost=lost)
    finally:
        await restored.postgres.kill()


async def test_cursor_is_reset_after_a_lagging_replica_is_promoted(primary: Primary) -> None:
    folder = await primary.back_up("replica")
    (folder / "postgres" / "data" / "standby.signal").touch()
    replica = cluster_servers(primary.servers, folder, {"fsync": "off"})
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


async def is_primary(servers: LocalServers) -> bool:
    if not await servers.postgres.program.is_ready():
        return False
    sql = await asyncpg.connect(servers.superuser_url)
    try:
        return bool(await sql.fetchval("SELECT NOT pg_is_in_recovery()"))
    finally:
        sql.terminate()


async def has_no_receiver(sql: Sql) -> bool:
    return bool(await sql.fetchval("SELECT count(*) = 0 FROM pg_stat_wal_receiver"))
