"""Recoveries by the script of docs/operations/backup that fail, or that are repeated."""

import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from segmentql.local import LocalServers
from tests.backups import (
    NO_FSYNC,
    PAGES,
    Operator,
    adopt_cluster,
    connect_superuser,
    give_to_account,
    is_primary,
    operator_folder,
)
from tests.conftest import Sql, until
from tests.history.clusters import cluster_servers
from tests.numbered_rows import create_numbers, numbers, set_configuration, store_row

pytestmark = pytest.mark.slow  # the tests start servers

LATEST: Final = "latest"
UTC_TIME: Final = (
    "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00')"
)

ARCHIVE_AGAIN: Final = re.findall(
    r'-c "(ALTER SYSTEM (?:RESET|SET archive_mode) [^"]*)"',
    (PAGES / "backup.md").read_text().partition("### Replace the server")[2],
)
"""The statements of the page after a recovery."""


@dataclass(frozen=True)
class LostServer:
    """The archive and the base backup of a server that is lost."""

    servers: LocalServers
    operator: Operator
    time_before_backup: str
    time_after_row_1: str
    """The row 2 is in a later file of the log, and so on."""
    wal_files: list[str]
    """The files of the log with the rows 1, 2 and 3."""

    @property
    def base(self) -> Path:
        return self.operator.folder / "base"

    def path(self, name: str) -> Path:
        return self.operator.folder / name

    async def recover(
        self, name: str, time: str = LATEST, *, backup: str = "base", archive: str = "archive"
    ) -> tuple[int, str]:
        """Run `recover.sh`; return its exit status and its output."""
        return await self.operator.result("recover.sh", backup, archive, name, time)

    def copy_base(self, name: str) -> Path:
        """Return a copy of the base backup."""
        shutil.copytree(self.base, self.path(name))
        give_to_account(self.path(name))
        return self.path(name)

    def copy_archive(self, name: str, *, without: str = "") -> Path:
        """Return a copy of the first timeline of the archive."""
        shutil.copytree(
            self.operator.archive,
            self.path(name),
            ignore=lambda _, names: [
                each for each in names if each == without or not each.startswith("00000001")
            ],
        )
        give_to_account(self.path(name))
        return self.path(name)


@pytest.fixture(scope="module")
async def lost(servers: LocalServers) -> AsyncIterator[LostServer]:
    """Run a server with an archive that waits for a standby; stop it after some rows."""
    with operator_folder() as operator:
        folder = operator.folder.parent / "source"
        running = cluster_servers(servers, folder, {**NO_FSYNC, "archive_mode": "on"})
        await running.postgres.start()
        try:
            sql = await connect_superuser(running)
            await create_numbers(sql)
            await set_configuration(
                sql, archive_command=operator.archive_command, synchronous_standby_names="*"
            )
            await sql.execute("SET synchronous_commit = local")
            await sql.execute("SELECT pg_reload_conf()")
            time_before_backup = await sql.fetchval(UTC_TIME)
            await operator.run("base-backup.sh", "base", url=running.superuser_url)
            # `recover.sh` compares seconds.
            await sql.execute("SELECT pg_sleep(1)")
            wal_files = [await store_row(sql, 1)]
            time_after_row_1 = await sql.fetchval(UTC_TIME)
            wal_files += [await store_row(sql, number) for number in (2, 3)]
            await until(lambda: operator.has_archived(wal_files[-1]), seconds=60)
            await sql.close()
        finally:
            await running.postgres.kill()
        yield LostServer(running, operator, time_before_backup, time_after_row_1, wal_files)


@asynccontextmanager
async def started(recovered: LocalServers) -> AsyncIterator[Sql]:
    """Start a recovered server, and connect after the recovery."""
    recovered.postgres.launch()
    try:
        await until(lambda: is_primary(recovered), seconds=60)
        sql = await connect_superuser(recovered)
        yield sql
        await sql.close()
    finally:
        await recovered.postgres.kill()


async def test_each_recovery_from_one_archive_takes_another_timeline(lost: LostServer) -> None:
    for name, time, rows, timeline in (
        ("first", lost.time_after_row_1, [1], 2),
        ("second", LATEST, [1, 12], 3),
    ):
        status, output = await lost.recover(name, time)
        assert status == 0, output
        recovered = adopt_cluster(lost.operator, name, lost.servers)
        async with started(recovered) as sql:
            assert await numbers(sql) == rows
            for statement in ARCHIVE_AGAIN:
                await sql.execute(statement)
        settings = (recovered.postgres.program.working_folder or Path()) / "postgresql.auto.conf"
        # A standby that is copied from now on would obey the target.
        assert "recovery_target" not in settings.read_text()
        async with started(recovered) as sql:
            # A commit waits for no standby.
            newest = await store_row(sql, 10 + timeline)
            assert newest.startswith(f"{timeline:08X}")
            await until(lambda name=newest: lost.operator.has_archived(name), seconds=60)  # type: ignore[misc]
            assert await sql.fetchval("SELECT failed_count FROM pg_stat_archiver") == 0
        assert await lost.operator.has_archived(f"{timeline:08X}.history")


async def test_recovery_to_a_time_before_the_backup_is_refused(lost: LostServer) -> None:
    time = lost.time_before_backup
    status, output = await lost.recover("early", time)
    assert status == 1
    assert output.startswith("recover.sh: the backup began at ")
    assert output.endswith(f"+00. Take a backup that is older than {time}\n")
    assert not lost.path("early").exists()


@pytest.mark.parametrize(
    "time", ["", "now", "2026-11-28", "2026-11-28 02:00:00", "2026-11-28 02:00:00+01"]
)
async def test_time_that_is_not_in_utc_is_refused(lost: LostServer, time: str) -> None:
    status, output = await lost.recover("unclear", time)
    assert (status, "TIME must be latest, or a time in UTC" in output) == (1, True), output


async def test_archive_with_a_gap_is_refused(lost: LostServer) -> None:
    for index, name in enumerate(lost.wal_files[:-1]):
        archive = lost.copy_archive(f"gap-{index}", without=name)
        status, output = await lost.recover("incomplete", archive=archive.name)
        assert status == 1
        assert f"has no {name}, so the recovery would end before it" in output
    assert not lost.path("incomplete").exists()


async def test_gap_before_a_later_timeline_is_refused_and_can_be_accepted(lost: LostServer) -> None:
    """The timeline 2 begins in the file of the row 3. The file of the row 2 is missing."""
    second, third = lost.wal_files[1:]
    archive = lost.copy_archive("failed-over", without=second)
    position = f"{int(third[8:16], 16):X}/{third[16:][-2:]}000100"
    (archive / "00000002.history").write_text(f"1\t{position}\tno recovery target specified\n")
    shutil.copy(archive / third, archive / f"00000002{third[8:]}")
    status, output = await lost.recover("after-gap", archive=archive.name)
    assert status == 1
    assert f"has no {second}, " in output
    assert "move all files with later names out of the archive" in output

    for file in archive.iterdir():
        if file.name > second:
            file.unlink()
    assert {file.name[:8] for file in archive.iterdir()} == {"00000001"}
    assert await lost.recover("after-gap", archive=archive.name) == (
        0,
        "start PostgreSQL with the data directory after-gap:"
        " it recovers to the end of the archive\n",
    )


async def test_gap_of_the_newest_timeline_is_found_beside_files_of_an_older_one(
    lost: LostServer,
) -> None:
    """The timeline 2 begins in the file of the row 1, and its second file is missing."""
    archive = lost.copy_archive("branched")
    first, second, third = (f"00000002{name[8:]}" for name in lost.wal_files)
    position = f"{int(first[8:16], 16):X}/{first[16:][-2:]}000100"
    (archive / "00000002.history").write_text(f"1\t{position}\tbefore 2026-11-28\n")
    for name in (first, third):
        shutil.copy(archive / lost.wal_files[0], archive / name)
    status, output = await lost.recover("incomplete", archive=archive.name)
    assert (status, f"has no {second}, " in output) == (1, True), output


async def test_first_file_may_be_only_in_the_backup(lost: LostServer) -> None:
    (first,) = (file.name for file in (lost.base / "pg_wal").glob("0*"))
    assert lost.operator.archive.joinpath(first).exists()
    archive = lost.copy_archive("without-first", without=first)
    status, output = await lost.recover("complete", archive=archive.name)
    assert status == 0, output
    async with started(adopt_cluster(lost.operator, "complete", lost.servers)) as sql:
        assert await numbers(sql) == [1, 2, 3]


async def test_killed_recovery_leaves_no_data_directory(lost: LostServer) -> None:
    lost.operator.replace_program("cp", 'cp "$@"; kill -9 $PPID')
    assert await lost.recover("killed") == (-9, "")
    lost.operator.restore_program("cp")
    assert not lost.path("killed").exists()
    status, output = await lost.recover("killed")
    assert (status, "killed.part exists" in output) == (1, True), output
    shutil.rmtree(lost.path("killed.part"))
    assert (await lost.recover("killed"))[0] == 0
    assert (lost.path("killed") / "recovery.signal").exists()


@pytest.mark.parametrize("end", ["exit 1", "kill -TERM $PPID"])
async def test_failed_recovery_leaves_nothing(lost: LostServer, end: str) -> None:
    lost.operator.replace_program("cp", f'cp "$@"; {end}')
    status, _ = await lost.recover("unfinished")
    lost.operator.restore_program("cp")
    assert status == 1
    assert list(lost.operator.folder.glob("unfinished*")) == []


async def test_link_to_a_backup_is_followed(lost: LostServer) -> None:
    lost.copy_base("daily")
    lost.path("newest").symlink_to("daily")
    assert (await lost.recover("from-link/", backup="newest"))[0] == 0
    assert not lost.path("from-link").is_symlink()
    assert (lost.path("from-link") / "recovery.signal").exists()
    assert not lost.path("daily/recovery.signal").exists()


async def test_incomplete_backup_is_refused(lost: LostServer) -> None:
    for file in (lost.copy_base("no-wal") / "pg_wal").glob("0*"):
        file.unlink()
    (lost.copy_base("no-label") / "backup_label").unlink()
    tablespace = lost.copy_base("tablespace") / "pg_tblspc" / "16384"
    tablespace.symlink_to(lost.base)
    for backup, reason in (
        ("no-wal", "no-wal has no pg_wal/0000000100"),
        ("no-label", "no-label has no backup_label"),
        ("tablespace", "tablespace/pg_tblspc/16384 is a link"),
    ):
        status, output = await lost.recover("refused", backup=backup)
        assert (status, reason in output, output.count("\n")) == (1, True, 1), output
    assert list(lost.operator.folder.glob("refused*")) == []


@pytest.mark.parametrize("character", [*"'\"$`%\\\n"])
async def test_archive_that_restore_command_cannot_name_is_refused(
    lost: LostServer, character: str
) -> None:
    archive = f"archive{character}1"
    lost.path(archive).mkdir()
    status, output = await lost.recover("refused", lost.time_after_row_1, archive=archive)
    assert (status, "the path of the archive must not contain" in output) == (1, True), output
    assert not lost.path("refused").exists()


async def test_relative_archive_is_found_despite_cdpath(lost: LostServer) -> None:
    status, output = await lost.operator.result(
        "recover.sh",
        *("base", "archive", "relative", LATEST),
        variables={"CDPATH": f"{os.sep}:{lost.operator.folder}"},
    )
    assert status == 0, output
    settings = (lost.path("relative") / "postgresql.auto.conf").read_text().splitlines()
    assert f"""restore_command = 'cp "{lost.operator.archive}/%f" "%p"'""" in settings
    assert [line for line in settings if " = " not in line and not line.startswith("#")] == []
