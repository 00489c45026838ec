"""Migrations declare which versions work on their schema, and those versions accept it."""

import asyncio
import itertools
from importlib.metadata import version
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy.exc import IntegrityError

from segmentql.adapters import migrations, revisions
from segmentql.adapters.connections import CONNECT_SECONDS, probe_engine
from segmentql.adapters.revisions import check_schema, known_revisions
from segmentql.doctor import Finding, Verdict, examine
from segmentql.errors import SchemaTooNew, SchemaTooOld
from segmentql.settings import Settings
from tests.conftest import Sql
from tests.new_version import add_migration, copy_migrations

FIRST_DECLARING = "0021"
OURS = known_revisions()[-1]


@pytest.fixture
async def migrated(blank: Settings) -> Settings:
    await asyncio.to_thread(migrations.upgrade, blank)
    return blank


async def migrate(settings: Settings, scripts: Path, revision: str = "head") -> None:
    """Upgrade or downgrade the database with the migrations of another version."""
    run = migrations.upgrade if revision == "head" else migrations.downgrade
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(revisions, "_SCRIPT_FOLDERS", (scripts,))
        await asyncio.to_thread(run, settings, revision)


async def state(sql: Sql) -> tuple[str, str]:
    """Return the database's revision and the oldest compatible one."""
    row = await sql.fetchrow(
        "SELECT version_num, oldest_revision FROM alembic_version, schema_compatibility"
    )
    assert row is not None
    return tuple(row)


async def check_start(settings: Settings) -> str | None:
    """Check the schema as this version does at its start; return the result."""
    engine = probe_engine(settings, name="tests", seconds=CONNECT_SECONDS)
    try:
        async with engine.connect() as connection:
            return await check_schema(connection)
    finally:
        await engine.dispose()


async def examined(settings: Settings) -> dict[str, Finding]:
    return {finding.check: finding async for finding in examine(settings)}


def test_each_migration_declares_the_oldest_compatible_revision() -> None:
    scripts = ScriptDirectory.from_config(migrations._scripts())
    declared = {
        script.revision: str(getattr(script.module, "oldest_compatible", None))
        for script in scripts.walk_revisions()
        if script.revision >= FIRST_DECLARING
    }
    assert FIRST_DECLARING in declared
    known = known_revisions()
    assert {
        revision: oldest
        for revision, oldest in declared.items()
        if oldest not in known or oldest > revision
    } == {}
    # A later schema cannot support a version that an earlier one does not support.
    oldest_first = [declared[revision] for revision in sorted(declared)]
    assert all(before <= after for before, after in itertools.pairwise(oldest_first))


async def test_each_step_stores_the_declaration_of_its_revision(
    migrated: Settings, inside: Sql, tmp_path: Path
) -> None:
    first = await state(inside)
    assert first[0] == OURS
    scripts = copy_migrations(tmp_path)
    add_migration(scripts, 1, oldest_compatible=OURS)
    contract = f"{int(OURS) + 2:04}"
    for number in (2, 3):
        add_migration(scripts, number, oldest_compatible=contract)
    await migrate(migrated, scripts)
    assert await state(inside) == (f"{int(OURS) + 3:04}", contract)
    await migrate(migrated, scripts, f"{int(OURS) + 1:04}")
    assert await state(inside) == (f"{int(OURS) + 1:04}", OURS)
    await migrate(migrated, scripts, OURS)
    assert await state(inside) == first


async def test_migration_without_a_declaration_changes_nothing(
    migrated: Settings, inside: Sql, tmp_path: Path
) -> None:
    before = await state(inside)
    scripts = copy_migrations(tmp_path)
    revision = add_migration(scripts, 1, oldest_compatible=None)
    with pytest.raises(IntegrityError, match="oldest_revision"):
        await migrate(migrated, scripts)
    assert await state(inside) == before
    columns = "SELECT attname FROM pg_attribute WHERE attrelid = 'segments'::regclass"
    assert f"added_{revision}" not in {row[0] for row in await inside.fetch(columns)}


async def test_newer_schema_that_supports_this_version_is_accepted(
    migrated: Settings, tmp_path: Path
) -> None:
    assert await check_start(migrated) is None
    scripts = copy_migrations(tmp_path)
    newer = add_migration(scripts, 1, oldest_compatible=OURS)
    await migrate(migrated, scripts)
    expected = (
        f"revision {newer}, which is newer than this version ({version('segmentql')})"
        " and supports it"
    )
    assert await check_start(migrated) == expected
    findings = await examined(migrated)  # takes a second, because it connects to every server
    assert findings["migrations"] == Finding(
        "migrations", Verdict.WARNING, f"at {expected}", "update SegmentQL soon"
    )
    # The other checks run as well.
    assert findings["history's partitions"].verdict is Verdict.OK
    with pytest.raises(SchemaTooNew):  # only a version with these migrations can continue
        await asyncio.to_thread(migrations.upgrade, migrated)


async def test_newer_schema_that_does_not_support_this_version_is_rejected(
    migrated: Settings, inside: Sql, tmp_path: Path
) -> None:
    scripts = copy_migrations(tmp_path)
    contract = add_migration(scripts, 1, oldest_compatible=f"{int(OURS) + 1:04}")
    await migrate(migrated, scripts)
    with pytest.raises(SchemaTooNew, match=f"supports only versions from revision {contract};"):
        await check_start(migrated)
    assert (await examined(migrated))["migrations"].verdict is Verdict.FAILED
    for statement in ("DELETE FROM schema_compatibility", "DROP TABLE schema_compatibility"):
        await inside.execute(statement)
        with pytest.raises(SchemaTooNew, match=rf"revision {contract}, .* does not know; update"):
            await check_start(migrated)


async def test_older_schema_is_rejected(migrated: Settings) -> None:
    await asyncio.to_thread(migrations.downgrade, migrated, "0020")
    with pytest.raises(SchemaTooOld, match="0020"):
        await check_start(migrated)
