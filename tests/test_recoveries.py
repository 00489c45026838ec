"""Recoveries by the scripts of docs/operations/backup that fail, or that are repeated."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from segmentql.local import LocalServers, with_database
from segmentql.local.postgres import SUPERUSER
from tests.backups import Operator, make_operator
from tests.conftest import Sql, until
from tests.history.clusters import ACCOUNT, cluster_servers

pytestmark = pytest.mark.slow  # the tests start servers

NO_FSYNC: Final = {"fsync": "off"}  # the machine does not crash
LATEST: Final = "latest"
UTC_TIME: Final = (
    "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00')"
)


@dataclass(frozen=True)
class Lost:
    """The archive and the base backup of a server that is lost."""

    servers: LocalServers
    operator: Operator
    secrets: Path
    before: str
    """A time before the base backup."""
    row_1: str
    """The time after the row 1. The row 2 is in a later file of the log, and so on."""
    names: list[str]
    """The files of the log with the rows 1, 2 and 3."""

    async def recover(self, archive: str, name: str, time: str) -> tuple[int, str]:
        """Run `recover.sh`; return its exit status and its output."""
        paths = [self.operator.path(each) for each in ("base", archive, name)]
        return await self.operator.result("recover.sh", *paths, time)


async def connect(servers: LocalServers) -> Sql:
    return await asyncpg.connect(with_database(servers.superuser_url, SUPERUSER))


async def store_row(sql: Sql, number: int) -> str:
    """Store a row, and begin a new file of the log; return the name of the file with the row."""
    await sql.execute("INSERT INTO numbers VALUES ($1)", number)
    name: str = await sql.fetchval("SELECT pg_walfile_name(pg_switch_wal())")
    return name


async def set_configuration(sql: Sql, **values: str) -> None:
    for name, value in values.items():
        await sql.execute(f"ALTER SYSTEM SET {name} = '{value}'")


async def is_archived(operator: Operator, name: str) -> bool:
    return Path(operator.path(f"archive/{name}")).exists()


@pytest.fixture(scope="module")
async def lost(servers: LocalServers) -> AsyncIterator[Lost]:
    """Run a server with a synchronous standby and an archive; stop it after some rows."""
    with tempfile.TemporaryDirectory(prefix="segmentql-recoveries-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "operator").mkdir()
        operator = make_operator(folder / "operator")
        command = f"{operator.script('archive-wal.sh')} {operator.path('archive')} %p %f"
        running = cluster_servers(servers, folder / "source", {**NO_FSYNC, "archive_mode": "on"})
        await running.postgres.start()
        try:
            sql = await connect(running)
            await sql.execute("CREATE TABLE numbers (number int)")
            await set_configuration(
                sql,
                archive_command=command,
                synchronous_standby_names="*",
                primary_conninfo="host=127.0.0.1 port=1",
            )
            await sql.execute("SET synchronous_commit = local")
            await sql.execute("SELECT pg_reload_conf()")
            before = await sql.fetchval(UTC_TIME)
            await operator.run("base-backup.sh", operator.path("base"), url=running.superuser_url)
            # `recover.sh` compares seconds.
            await sql.execute("SELECT pg_sleep(1)")
            names = [await store_row(sql, 1)]
            row_1 = await sql.fetchval(UTC_TIME)
            names += [await store_row(sql, number) for number in (2, 3)]
            await until(lambda: is_archived(operator, names[-1]), seconds=60)
            await sql.close()
        finally:
            await running.postgres.kill()
        yield Lost(running, operator, folder / "source" / "secrets.json", before, row_1, names)


@asynccontextmanager
async def started(lost: Lost, name: str) -> AsyncIterator[Sql]:
    """Start the recovered server with a data directory, and connect after the recovery."""
    home = lost.operator.folder.parent / f"{name}-home"
    data = home / "postgres" / "data"
    if not home.exists():
        home.mkdir()
        shutil.copy(lost.secrets, home)
        cluster_servers(lost.servers, home, NO_FSYNC)  # creates the folder of PostgreSQL
        Path(lost.operator.path(name)).rename(data)
    recovered = cluster_servers(lost.servers, home, NO_FSYNC)
    recovered.postgres.launch()
    try:
        await until(lambda: is_primary(recovered), seconds=60)
        sql = await connect(recovered)
        yield sql
        await sql.close()
    finally:
        await recovered.postgres.kill()


async def is_primary(servers: LocalServers) -> bool:
    try:
        sql = await connect(servers)
    except (OSError, asyncpg.PostgresError):
        return False
    try:
        return bool(await sql.fetchval("SELECT NOT pg_is_in_recovery()"))
    finally:
        await sql.close()


async def numbers(sql: Sql) -> list[int]:
    return [row[0] for row in await sql.fetch("SELECT number FROM numbers ORDER BY number")]


async def test_each_recovery_from_one_archive_takes_another_timeline(lost: Lost) -> None:
    assert (await lost.recover("archive", "first", lost.row_1))[0] == 0
    async with started(lost, "first") as sql:
        assert await numbers(sql) == [1]
        await set_configuration(sql, archive_mode="on")
    async with started(lost, "first") as sql:
        # A commit waits for no standby.
        newest = await store_row(sql, 10)
        assert newest.startswith("00000002")
        await until(lambda: is_archived(lost.operator, newest), seconds=60)
    assert await is_archived(lost.operator, "00000002.history")

    assert (await lost.recover("archive", "second", LATEST))[0] == 0
    async with started(lost, "second") as sql:
        assert await numbers(sql) == [1, 10]
        await set_configuration(sql, archive_mode="on")
    async with started(lost, "second") as sql:
        newest = await store_row(sql, 11)
        assert newest.startswith("00000003")
        await until(lambda: is_archived(lost.operator, newest), seconds=60)
        assert await sql.fetchval("SELECT failed_count FROM pg_stat_archiver") == 0


async def test_recovery_to_a_time_before_the_backup_is_refused(lost: Lost) -> None:
    status, output = await lost.recover("archive", "early", lost.before)
    assert (status, output.endswith(f"+00. Take one that is older than {lost.before}\n")) == (
        1,
        True,
    )
    assert "the backup began at " in output
    assert not Path(lost.operator.path("early")).exists()


@pytest.mark.parametrize(
    "time", ["", "now", "2026-11-28", "2026-11-28 02:00:00", "2026-11-28 02:00:00+01"]
)
async def test_time_that_is_not_in_utc_is_refused(lost: Lost, time: str) -> None:
    status, output = await lost.recover("archive", "unclear", time)
    assert (status, "TIME must be latest, or a time in UTC" in output) == (1, True), output


async def test_archive_with_a_gap_is_refused(lost: Lost) -> None:
    for index, name in enumerate(lost.names[:-1]):
        archive = f"gap-{index}"
        _copy_archive(lost, archive, without=name)
        status, output = await lost.recover(archive, "incomplete", LATEST)
        assert (status, f"has no {name}, so the recovery would end before it" in output) == (
            1,
            True,
        )
    assert not Path(lost.operator.path("incomplete")).exists()


async def test_gap_of_the_newest_timeline_is_found_beside_files_of_an_older_one(lost: Lost) -> None:
    """The timeline 2 begins in the file of the row 1, and its second file is missing."""
    archive = Path(lost.operator.path("branched"))
    first, second, third = (f"00000002{name[8:]}" for name in lost.names)
    _copy_archive(lost, archive.name, without="")
    position = f"{int(first[8:16], 16):X}/{first[16:][-2:]}000100"
    (archive / "00000002.history").write_text(f"1\t{position}\tbefore 2026-11-28\n")
    for name in (first, third):
        shutil.copy(archive / lost.names[0], archive / name)
    status, output = await lost.recover(archive.name, "incomplete", LATEST)
    assert (status, f"has no {second}, " in output) == (1, True), output


def _copy_archive(lost: Lost, name: str, *, without: str) -> None:
    target = Path(lost.operator.path(name))
    shutil.copytree(lost.operator.path("archive"), target)
    for file in target.glob("*"):
        if file.name == without or not file.name.startswith("00000001"):
            file.unlink()
    if ACCOUNT:
        for path in (target, *target.iterdir()):
            shutil.chown(path, ACCOUNT.user_id, ACCOUNT.group_id)
