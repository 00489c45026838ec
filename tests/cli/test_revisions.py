"""Commands on a database whose schema does not match this version print one line."""

import asyncio
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from segmentql.adapters import migrations
from segmentql.adapters.revisions import known_revisions, newest_revision
from segmentql.doctor import Finding, Verdict, examine
from segmentql.local.ports import free_port
from segmentql.settings import Settings
from tests.cli.command_process import run
from tests.conftest import PATIENCE_SECONDS, Sql, environment

# Most tests start commands, each of which takes a second to import.
pytestmark = pytest.mark.slow

OURS = version("segmentql")
TOO_NEW = f"the database is at revision 9999, which this version ({OURS}) does not know"
SUPPORTED = "and which supports only versions from revision 9998"
NEWER = f"it is at revision 9999, which is newer than this version ({OURS}) and supports it"
UNREACHABLE = "postgresql+asyncpg://u:secret@127.0.0.1:1/d"
TOO_OLD = f"the database is at revision 0001, but this version ({OURS}) needs {newest_revision()}"


async def migrations_finding(settings: Settings) -> Finding:
    return {finding.check: finding async for finding in examine(settings)}["migrations"]


async def set_revision(sql: Sql, revision: str) -> None:
    await sql.execute("UPDATE alembic_version SET version_num = $1", revision)


async def set_oldest_compatible(sql: Sql, revision: str) -> None:
    await sql.execute("UPDATE schema_compatibility SET oldest_revision = $1", revision)


async def test_newer_database_is_rejected_and_unchanged(
    blank: Settings, inside: Sql, tmp_path: Path
) -> None:
    await asyncio.to_thread(migrations.upgrade, blank)
    await set_revision(inside, "9999")
    await set_oldest_compatible(inside, "9998")
    for arguments in (("migrate",), ("serve", "--port", "1"), ("worker",)):
        code, output = await run(blank, tmp_path, *arguments)
        assert code == 1
        assert output.splitlines()[-1] == f"Error: {TOO_NEW} {SUPPORTED}; update SegmentQL"
        assert "Traceback" not in output
    assert await inside.fetchval("SELECT version_num FROM alembic_version") == "9999"
    finding = await migrations_finding(blank)
    assert (finding.verdict, finding.remedy) == (Verdict.FAILED, "update SegmentQL")
    assert f"the database is {finding.observation}" == f"{TOO_NEW} {SUPPORTED}"


async def test_migrate_checks_a_newer_database_as_its_owner(
    blank: Settings, inside: Sql, tmp_path: Path
) -> None:
    await asyncio.to_thread(migrations.upgrade, blank)
    await set_revision(inside, "9999")
    owner_url = blank.owner_database_url
    changes = {"database_url": UNREACHABLE, "migration_database_url": owner_url}
    code, output = await run(blank.model_copy(update=changes), tmp_path, "migrate")
    assert (code, output.splitlines()[-1]) == (0, "Note: the database was not changed.")
    assert NEWER in output
    assert "database_away_at_start" not in output


async def test_newer_database_that_supports_this_version_is_used_and_not_migrated(
    blank: Settings, inside: Sql, tmp_path: Path
) -> None:
    await asyncio.to_thread(migrations.upgrade, blank)
    await set_revision(inside, "9999")
    code, output = await run(blank, tmp_path, "migrate")
    assert (code, output.splitlines()[-1]) == (0, "Note: the database was not changed.")
    assert NEWER in output
    assert await inside.fetchval("SELECT version_num FROM alembic_version") == "9999"
    for command, started in (
        ("serve", b"Application startup complete"),
        ("worker", b"worker_started"),
    ):
        output_until_start = await output_of_start(blank, tmp_path, command, started)
        assert b"warning" in output_until_start
        assert NEWER.encode() in output_until_start


async def output_of_start(settings: Settings, folder: Path, command: str, started: bytes) -> bytes:
    """Start a process; return its log up to an event, and stop it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", command),
        cwd=folder,
        env=environment(settings, SEGMENTQL_PORT=str(free_port())),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr
    output = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while started not in output:
            line = await process.stderr.readline()
            assert line, output.decode()
            output += line
    process.terminate()
    await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    return output


async def test_older_database_is_rejected_with_the_command_to_run(
    blank: Settings, inside: Sql, tmp_path: Path
) -> None:
    await asyncio.to_thread(migrations.upgrade, blank, "0001")
    await inside.execute("GRANT SELECT ON alembic_version TO segmentql_service")
    for arguments in (("serve", "--port", "1"), ("worker",)):
        code, output = await run(blank, tmp_path, *arguments)
        assert code == 1
        assert output.splitlines()[-1] == f"Error: {TOO_OLD}; run `segmentql migrate`"
    finding = await migrations_finding(blank)
    assert (finding.verdict, finding.remedy) == (Verdict.FAILED, "run `segmentql migrate`")


@pytest.mark.parametrize("command", ["serve", "worker"])
async def test_database_without_tables_is_rejected(
    blank: Settings, tmp_path: Path, command: str
) -> None:
    code, output = await run(blank, tmp_path, command)
    assert code == 1
    last = output.splitlines()[-1]
    assert "never migrated" in last
    assert last.endswith("run `segmentql migrate`")


@pytest.mark.parametrize(
    "arguments", ["seed", "keys list", "report --month 2024-01", "rollout watch A"]
)
async def test_command_on_a_database_without_tables_suggests_doctor(
    blank: Settings, tmp_path: Path, arguments: str
) -> None:
    code, output = await run(blank, tmp_path, *arguments.split())
    assert (code, output) == (
        1,
        "Error: the database's tables do not match this version;"
        " run `segmentql doctor` for details\n",
    )


async def test_unreachable_database_does_not_prevent_the_start(
    blank: Settings, tmp_path: Path
) -> None:
    unreachable = blank.model_copy(update={"database_url": UNREACHABLE})
    output = await output_of_start(unreachable, tmp_path, "worker", b"worker_started")
    assert b"database_away_at_start" in output
    assert b"127.0.0.1:1/d" in output
    assert b"secret@" not in output


async def test_migrate_rejects_an_unknown_revision(blank: Settings, tmp_path: Path) -> None:
    code, output = await run(blank, tmp_path, "migrate", "--to", "nonsense")
    assert code == 2
    assert f"must be head, or one of 0001, 0002, {', '.join(known_revisions()[2:])}" in output


async def test_migrate_rejects_a_transaction_pooler(blank: Settings, tmp_path: Path) -> None:
    pooled = blank.model_copy(update={"migration_database_url": blank.database_url})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", "migrate"),
        cwd=tmp_path,
        env=environment(pooled, SEGMENTQL_DATABASE_POOLER="transaction"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, output = await process.communicate()
    assert process.returncode == 1
    assert b"set SEGMENTQL_MIGRATION_DATABASE_URL to PostgreSQL itself" in output


def test_known_revisions_equal_those_of_alembic() -> None:
    scripts = ScriptDirectory.from_config(migrations._scripts())
    assert known_revisions() == sorted(script.revision for script in scripts.walk_revisions())
    assert newest_revision() == scripts.get_current_head()
