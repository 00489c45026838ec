"""`segmentql downgrade` undoes migrations, and refuses where that would be wrong."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from segmentql.adapters import migrations
from segmentql.adapters.revisions import known_revisions
from segmentql.local import LocalServers, with_database
from segmentql.settings import Settings
from tests.cli.command_process import run
from tests.conftest import PATIENCE_SECONDS, Sql, environment
from tests.pooler import behind_pooler, pgbouncer

pytestmark = pytest.mark.slow  # each test starts a command, which takes a second to import

OLDER, NEWEST = known_revisions()[-2:]
SESSIONS: Final = (
    "Error: stop all processes first; if a pooler then keeps connections open, close them"
    " (RECONNECT in PgBouncer's admin console). Sessions of the service's or the owner's role:"
    " segmentql api (1)\n"
)


@pytest.fixture
async def migrated(blank: Settings) -> Settings:
    await asyncio.to_thread(migrations.upgrade, blank)
    return blank


@asynccontextmanager
async def session(settings: Settings, url: str) -> AsyncIterator[None]:
    """Open a session in the database of `settings`, as a process of the service does."""
    connection = await asyncpg.connect(
        with_database(url, settings.database_url.rpartition("/")[2]),
        server_settings={"application_name": "segmentql api"},
    )
    try:
        yield
    finally:
        await connection.close()


async def revision(sql: Sql) -> str | None:
    found: str | None = await sql.fetchval("SELECT version_num FROM alembic_version")
    return found


async def test_migrations_are_undone(migrated: Settings, inside: Sql, tmp_path: Path) -> None:
    code, output = await run(migrated, tmp_path, "downgrade", OLDER, "--yes")
    assert code == 0
    assert f"Running downgrade {NEWEST} -> {OLDER}" in output
    assert output.splitlines()[-1] == (
        f"the database is at revision {OLDER}; now run `segmentql migrate` of the older version,"
        " which grants its privileges"
    )
    assert await revision(inside) == OLDER

    code, output = await run(migrated, tmp_path, "downgrade", OLDER)
    assert (code, output) == (0, f"nothing to undo: the database is at revision {OLDER}\n")

    await asyncio.to_thread(migrations.upgrade, migrated)
    assert await revision(inside) == NEWEST


async def test_confirmation_is_needed(migrated: Settings, inside: Sql, tmp_path: Path) -> None:
    code, output = await run(migrated, tmp_path, "downgrade", OLDER)
    assert (code, output) == (
        1,
        "Error: nothing is undone without a confirmation: add --yes, or run this in a terminal\n",
    )
    assert await revision(inside) == NEWEST


@pytest.mark.parametrize("role", ["service", "owner"])
async def test_connected_session_is_named(
    servers: LocalServers, migrated: Settings, inside: Sql, tmp_path: Path, role: str
) -> None:
    url = servers.service_url if role == "service" else servers.owner_url
    async with session(migrated, url):
        code, output = await run(migrated, tmp_path, "downgrade", OLDER, "--yes")
    assert (code, output) == (1, SESSIONS)
    assert await revision(inside) == NEWEST


async def test_session_that_connected_during_the_question_is_named(
    servers: LocalServers, migrated: Settings, inside: Sql, tmp_path: Path
) -> None:
    controller, terminal = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", "downgrade", OLDER),
        cwd=tmp_path,
        env=environment(migrated),
        stdin=terminal,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await process.stdout.readuntil(b"[y/N]: ")
            async with session(migrated, servers.service_url):
                os.write(controller, b"y\n")
                output = await process.stdout.read()
                assert await process.wait() == 1
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(terminal)
        os.close(controller)
    assert output.decode() == SESSIONS
    assert await revision(inside) == NEWEST


async def test_idle_connection_of_a_pooler_is_reported_until_reconnect(
    migrated: Settings, inside: Sql, tmp_path: Path
) -> None:
    role = make_url(migrated.database_url).username or ""
    async with pgbouncer(migrated.database_url, admin_users=role) as url:
        pooled = behind_pooler(migrated, url)
        plain = url.replace("+asyncpg", "")
        client = await asyncpg.connect(plain)
        await client.execute("SELECT")
        await client.close()  # PgBouncer keeps its connection to PostgreSQL
        code, output = await run(pooled, tmp_path, "downgrade", OLDER, "--yes")
        assert (code, output) == (1, SESSIONS.replace("segmentql api", "unnamed"))

        admin = await asyncpg.connect(with_database(plain, "pgbouncer"))
        await admin.execute("RECONNECT")
        await admin.close()
        code, output = await run(pooled, tmp_path, "downgrade", OLDER, "--yes")
    assert code == 0, output
    assert await revision(inside) == OLDER


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ("0019", f"the database is at revision 0019, which is older than {OLDER}"),
        ("9999", "the database is at revision 9999, which this version"),
        (None, "the database was never migrated"),
    ],
)
async def test_impossible_downgrade_is_refused(
    migrated: Settings, inside: Sql, tmp_path: Path, stored: str | None, message: str
) -> None:
    await inside.execute("DELETE FROM alembic_version")
    if stored:
        await inside.execute("INSERT INTO alembic_version VALUES ($1)", stored)
    code, output = await run(migrated, tmp_path, "downgrade", OLDER, "--yes")
    assert code == 1
    assert output.startswith(f"Error: {message}")
    assert await revision(inside) == stored


async def test_migration_that_cannot_be_undone_is_named(
    migrated: Settings, inside: Sql, tmp_path: Path
) -> None:
    await inside.execute("UPDATE dropped_history SET earliest_at = '2024-03-01Z'")
    code, output = await run(migrated, tmp_path, "downgrade", "0019", "--yes")
    assert code == 1
    last = output.splitlines()[-1]
    assert last.startswith("Error: history before 2024-03-01")
    assert last.endswith(
        "keep the migrations; the database is at revision 0020, so run `segmentql migrate` before"
        " you start this version again"
    )
    assert await revision(inside) == "0020"


async def test_unreachable_database_is_an_error(migrated: Settings, tmp_path: Path) -> None:
    away = migrated.model_copy(
        update={"migration_database_url": "postgresql+asyncpg://u:secret@127.0.0.1:1/d"}
    )
    code, output = await run(away, tmp_path, "downgrade", OLDER, "--yes")
    assert code == 1
    assert output.startswith("Error: cannot connect to 127.0.0.1:1/d: ")


async def test_unknown_revision_is_rejected(migrated: Settings, tmp_path: Path) -> None:
    code, output = await run(migrated, tmp_path, "downgrade", "head")
    assert code == 2
    assert "must be one of 0001, 0002, " in output
