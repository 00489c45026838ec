"""Backups of a database in use, restored by the scripts of docs/operations/backup."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from segmentql.adapters import migrations
from segmentql.local import LocalServers, with_database
from segmentql.local.postgres import DATABASE
from tests.backups import (
    NO_FSYNC,
    Operator,
    administrator_time,
    adopt_cluster,
    database_state,
    empty_server,
    is_primary,
    make_administrator,
    operator_folder,
    set_passwords,
    sql_of,
)
from tests.conftest import Api, RunWorker, Sql, serving, until
from tests.feed.queries import CHANGES, all_changes, changes
from tests.history.clusters import migrated_cluster
from tests.operations import create_user, delete_user, make_segments, update_segment_members
from tests.rollouts.graphql_client import read_rollout, set_rollout
from tests.timeline import SECOND, add_membership, history_inconsistencies

pytestmark = [
    pytest.mark.slow,  # each test starts servers
    pytest.mark.usefixtures("s3"),
]

EXPIRED_USER: Final = 77
RESTORED: Final = "restored"

READS: Final = """
{
  users(first: 100) { nodes { id key memberships { joinedAt expiresAt cause segment { slug } } } }
  segments(first: 10) { nodes { slug version memberCount rollout { status enrolled } } }
  history(first: 100) { nodes { userId operation at recordedAt cause segment { slug } } }
}
"""


@dataclass(frozen=True)
class Source:
    """The server that is lost, its data, and an operator who backs it up."""

    servers: LocalServers
    operator: Operator
    api: Api
    kept: str
    """A cursor of the feed that is older than each backup."""


@pytest.fixture(scope="module")
async def source(servers: LocalServers) -> AsyncIterator[Source]:
    """Run a server that archives its log by the script, with data that no worker has handled."""
    with operator_folder() as operator:
        folder = operator.folder.parent / "source"
        settings = {"archive_mode": "on", "archive_command": operator.archive_command}
        async with (
            migrated_cluster(servers, folder, NO_FSYNC | settings) as running,
            serving(running.settings(DATABASE)) as api,
        ):
            yield Source(running, operator, api, await store_data(api, running))


async def store_data(api: Api, servers: LocalServers) -> str:
    """Store data of each kind; return the cursor of the feed before the last changes."""
    await make_segments(api, "A", "R")
    await update_segment_members(api, "A", add=range(1, 31))
    await update_segment_members(api, "A", add=[31, 32], ttlSeconds=86_400)
    await update_segment_members(api, "A", remove=[3])
    assert (await create_user(api, key="alice"))["errors"] == []
    kept: str = (await changes(api, start="NOW"))["cursor"]
    rollout = {"stages": [{"percent": 50}, {"percent": 100, "afterSeconds": 1}]}
    assert (await set_rollout(api, rollout, slug="R"))["errors"] == []
    sql: Sql = await asyncpg.connect(servers.superuser_url)
    segment_id = await sql.fetchval("SELECT id FROM segments WHERE slug = 'A'")
    await add_membership(sql, EXPIRED_USER, segment_id, ends_in=-SECOND)
    await sql.close()
    return kept


@dataclass(frozen=True)
class LostChanges:
    """What clients have seen of the changes after a backup."""

    cursor: str
    user_ids: set[str]


async def lose_changes(source: Source) -> LostChanges:
    """Change data after a backup."""
    users = [await create_user(source.api), await create_user(source.api, key="lost")]
    await update_segment_members(source.api, "A", add=range(40, 45))
    await update_segment_members(source.api, "A", remove=range(40, 45))
    cursor = (await changes(source.api, start="NOW"))["cursor"]
    assert (await delete_user(source.api, "lost"))["errors"] == []
    return LostChanges(cursor, {payload["user"]["id"] for payload in users})


async def check_restored(
    source: Source,
    restored: LocalServers,
    run_worker: RunWorker,
    *,
    before: Any,
    lost: LostChanges,
    database: str = DATABASE,
) -> None:
    """Check reads, the feed, triggers, privileges and workers of a restored database."""
    settings = restored.settings(database)
    await asyncio.to_thread(migrations.upgrade, settings)
    sql: Sql = await asyncpg.connect(with_database(restored.superuser_url, database))
    async with serving(settings) as api:
        assert await api(READS) == before
        missed = await changes(api, after=source.kept)
        assert [event["entry"]["userId"] for event in missed["events"]][:1] == [str(EXPIRED_USER)]
        assert (await api.error(CHANGES, after=lost.cursor))["extensions"]["code"] == "FEED_RESET"

        await update_segment_members(api, "A", add=[50])
        newest = (await all_changes(api, missed["cursor"]))[-1]
        assert (newest["userId"], newest["operation"]) == ("50", "JOINED")
        # as many changes as were lost, at the same positions
        await update_segment_members(api, "A", add=range(60, 75))
        assert (await api.error(CHANGES, after=lost.cursor))["extensions"]["code"] == "FEED_RESET"
        await check_privileges(restored, database)
        await check_skipped_ids(api, restored, database, lost.user_ids)

        async with run_worker(
            SEGMENTQL_DATABASE_URL=settings.database_url,
            SEGMENTQL_MIGRATION_DATABASE_URL="",
        ):
            await until(lambda: is_completed(api))
            await until(lambda: is_recorded(sql))
        users = await sql.fetchval("SELECT count(*) FROM users")
        assert await sql.fetchval("SELECT count(*) FROM memberships WHERE cause = 'ROLLOUT'") == (
            users
        )
    assert await history_inconsistencies(sql) == {}
    await sql.close()


async def check_skipped_ids(
    api: Api, restored: LocalServers, database: str, lost_ids: set[str]
) -> None:
    """Check that the SQL of the page leaves out the ids of the users that were lost."""
    skip_ids, compare = sql_of("backup.md")
    owner: Sql = await asyncpg.connect(with_database(restored.owner_url, database))
    await owner.execute(skip_ids)
    await owner.fetch(compare)
    await owner.close()
    users = [await create_user(api), await create_user(api, key="new")]
    assert [
        int(payload["user"]["id"]) > int(lost_id) + 900_000
        for payload, lost_id in zip(users, sorted(lost_ids, key=int), strict=True)
    ] == [True, True]


async def check_privileges(restored: LocalServers, database: str) -> None:
    """Check that the service cannot write history, and the owner can."""
    service: Sql = await asyncpg.connect(with_database(restored.service_url, database))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute("DELETE FROM history")
    await service.close()
    owner: Sql = await asyncpg.connect(with_database(restored.owner_url, database))
    await owner.execute("DELETE FROM history WHERE position < 0")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="TRUNCATE"):
        await owner.execute("TRUNCATE memberships")
    await owner.close()


async def is_completed(api: Api) -> bool:
    return bool((await read_rollout(api, "R"))["status"] == "COMPLETED")


async def is_recorded(sql: Sql) -> bool:
    left = "SELECT count(*) FROM memberships WHERE expires_at < clock_timestamp()"
    return bool(await sql.fetchval(left) == 0)


async def test_dump_is_restored_into_an_empty_server(source: Source, run_worker: RunWorker) -> None:
    operator, dump = source.operator, source.operator.path("segmentql.dump")
    before = await source.api(READS)
    state = await database_state(source.servers, DATABASE)
    # The owner of the tables can back them up.
    await operator.run("dump.sh", DATABASE, dump, url=source.servers.owner_url)
    lost = await lose_changes(source)

    folder = operator.folder.parent / "empty"
    async with empty_server(source.servers, folder, NO_FSYNC) as empty:
        url = await make_administrator(empty)
        output = await operator.run("restore-dump.sh", dump, RESTORED, url=url)
        assert output == f"restored {dump} into the database {RESTORED}\n"
        await set_passwords(empty)
        restored_state = await database_state(empty, RESTORED)
        for part, original in zip(restored_state, state, strict=True):  # a readable failure
            assert part == original
        await check_restored(source, empty, run_worker, before=before, lost=lost, database=RESTORED)


async def test_base_backup_is_recovered_to_a_time(source: Source, run_worker: RunWorker) -> None:
    operator = source.operator
    await operator.run("base-backup.sh", operator.path("base"), url=source.servers.superuser_url)
    await update_segment_members(source.api, "A", add=[33])  # only in the log
    before = await source.api(READS)
    state = await database_state(source.servers, DATABASE)
    await asyncio.sleep(1)  # `recover.sh` compares seconds
    moment = await administrator_time(source.servers)
    lost = await lose_changes(source)
    await archive_log(source)

    await operator.run("recover.sh", "base", "archive", "recovered", moment)
    recovered = adopt_cluster(operator, "recovered", source.servers)
    recovered.postgres.launch()
    try:
        await until(lambda: is_primary(recovered), seconds=60)
        assert await database_state(recovered, DATABASE) == state
        # The next recovery to the end of the archive would follow this timeline.
        assert list(operator.archive.glob("*.history")) == []
        await check_restored(source, recovered, run_worker, before=before, lost=lost)
    finally:
        await recovered.postgres.kill()


async def archive_log(source: Source) -> None:
    """Let the server archive all of its log."""
    sql: Sql = await asyncpg.connect(source.servers.superuser_url)
    name = await sql.fetchval("SELECT pg_walfile_name(pg_switch_wal())")
    await sql.close()
    await until(lambda: source.operator.has_archived(name), seconds=60)


async def test_scripts_overwrite_nothing(source: Source) -> None:
    operator = source.operator
    for name in ("taken", "log", "other"):
        Path(operator.path(name)).write_text(name)
    archive = operator.path("archive")
    await operator.run("archive-wal.sh", archive, operator.path("log"), "0001")
    await operator.run("archive-wal.sh", archive, operator.path("log"), "0001")
    taken, other = operator.path("taken"), operator.path("other")
    for script, *arguments in (
        ("archive-wal.sh", archive, other, "0001"),
        ("dump.sh", DATABASE, taken),
        ("base-backup.sh", taken),
        ("recover.sh", operator.path("scripts"), archive, taken, "latest"),
    ):
        status, output = await operator.result(script, *arguments, url=source.servers.owner_url)
        assert (status, "exists" in output) == (1, True), output
    assert Path(taken).read_text() == "taken"
    assert Path(f"{archive}/0001").read_text() == "log"
    Path(f"{archive}/0001").unlink()


async def test_interrupted_base_backup_gets_no_name(source: Source) -> None:
    operator, url = source.operator, source.servers.superuser_url
    operator.replace_program("pg_verifybackup", "kill -9 $PPID")
    assert await operator.result("base-backup.sh", "interrupted", url=url) == (-9, "")
    operator.restore_program("pg_verifybackup")
    assert not (operator.folder / "interrupted").exists()
    status, output = await operator.result("base-backup.sh", "interrupted", url=url)
    assert (status, "interrupted.part exists: an earlier run" in output) == (1, True), output


async def test_failed_dump_leaves_nothing(source: Source) -> None:
    operator = source.operator
    missing = operator.path("missing.dump")
    status, output = await operator.result(
        "dump.sh", "missing", missing, url=source.servers.owner_url
    )
    assert status == 1
    assert 'database "missing" does not exist' in output
    assert list(operator.folder.glob("missing*")) == []


async def test_file_that_is_no_dump_creates_no_database(source: Source) -> None:
    operator, url = source.operator, source.servers.superuser_url
    Path(operator.path("text.dump")).write_text("text" * 100)
    for name, reason in (
        ("text.dump", "does not appear to be a valid archive"),
        ("none.dump", "could not open input file"),
    ):
        status, output = await operator.result("restore-dump.sh", name, "nothing", url=url)
        assert (status, reason in output) == (1, True), output
    sql: Sql = await asyncpg.connect(url)
    assert not await sql.fetchval("SELECT count(*) FROM pg_database WHERE datname = 'nothing'")
    await sql.close()
