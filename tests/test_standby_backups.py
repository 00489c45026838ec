"""Base backups from a standby, and recoveries after a failover, by docs/operations/backup."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from segmentql.local import LocalServers
from tests.backups import (
    NO_FSYNC,
    Operator,
    adopt_cluster,
    connect_superuser,
    is_primary,
    operator_folder,
)
from tests.conftest import Sql, until
from tests.history.clusters import cluster_servers
from tests.numbered_rows import create_numbers, numbers, set_configuration, store_row

pytestmark = pytest.mark.slow  # the tests start servers

STANDBY_SETTINGS = {
    "recovery_min_apply_delay": "1h",
    "recovery_end_command": "false",
    "archive_cleanup_command": "rm archive/*",
}
"""Settings that a recovery must not take from the standby."""


class Pair:
    """A primary and its standby, which share an archive."""

    def __init__(self, operator: Operator, primary: LocalServers, standby: LocalServers) -> None:
        self.operator = operator
        self.primary = primary
        self.standby = standby

    @asynccontextmanager
    async def recovered(self, backup: str, name: str) -> AsyncIterator[Sql]:
        """Recover a backup to the end of the archive; connect after the recovery."""
        await self.operator.run("recover.sh", backup, "archive", name, "latest")
        server = adopt_cluster(self.operator, name, self.primary)
        server.postgres.launch()
        try:
            await until(lambda: is_primary(server), seconds=30)
            sql = await connect_superuser(server)
            yield sql
            await sql.close()
        finally:
            await server.postgres.kill()


@pytest.fixture
async def pair(servers: LocalServers) -> AsyncIterator[Pair]:
    with operator_folder() as operator:
        settings = {**NO_FSYNC, "archive_mode": "on"}
        primary = cluster_servers(servers, operator.folder.parent / "source", settings)
        await primary.postgres.start()
        try:
            sql = await connect_superuser(primary)
            await create_numbers(sql)
            await set_configuration(sql, archive_command=operator.archive_command)
            await sql.execute("SELECT pg_reload_conf()")
            for name in ("base", "standby"):
                await operator.run("base-backup.sh", name, url=primary.superuser_url)
            (operator.folder / "standby" / "standby.signal").touch()
            standby = adopt_cluster(
                operator,
                "standby",
                primary,
                settings | {"primary_conninfo": primary.superuser_url},
            )
            standby.postgres.launch()
            try:
                await until(standby.postgres.program.is_ready, seconds=60)
                await operator_waits_for(operator, await store_row(sql, 1))
                await sql.close()
                yield Pair(operator, primary, standby)
            finally:
                await standby.postgres.kill()
        finally:
            await primary.postgres.kill()


async def operator_waits_for(operator: Operator, name: str) -> None:
    await until(lambda: operator.has_archived(name), seconds=60)


async def test_backup_from_a_standby_is_recovered(pair: Pair) -> None:
    sql = await connect_superuser(pair.standby)
    # without a reload, so that only the backup has the settings
    await set_configuration(sql, **STANDBY_SETTINGS)
    await sql.close()
    await pair.operator.run("base-backup.sh", "standby-base", url=pair.standby.superuser_url)
    assert (pair.operator.folder / "standby-base" / "standby.signal").exists()
    sql = await connect_superuser(pair.primary)
    await operator_waits_for(pair.operator, await store_row(sql, 2))
    await sql.close()
    async with pair.recovered("standby-base", "recovered") as sql:
        assert await numbers(sql) == [1, 2]
        for name in STANDBY_SETTINGS:
            assert await sql.fetchval(f"SHOW {name}") in ("", "0"), name


async def test_backup_after_a_failover_closes_the_gap_of_the_archive(pair: Pair) -> None:
    old, new = await connect_superuser(pair.primary), await connect_superuser(pair.standby)
    await set_configuration(old, archive_command="false")
    await old.execute("SELECT pg_reload_conf()")
    await until(lambda: has_setting(old, "archive_command", "false"))
    lost_file = await store_row(old, 2)
    await store_row(old, 3)
    await until(lambda: has_rows(new, [1, 2, 3]))
    await pair.primary.postgres.kill()
    old.terminate()
    assert await new.fetchval("SELECT pg_promote()")
    await operator_waits_for(pair.operator, await store_row(new, 4))

    # A standby archives nothing that it has received.
    status, output = await pair.operator.result(
        "recover.sh", "base", "archive", "refused", "latest"
    )
    assert (status, f"has no {lost_file}, " in output) == (1, True), output
    await pair.operator.run("base-backup.sh", "new-base", url=pair.standby.superuser_url)
    await operator_waits_for(pair.operator, await store_row(new, 5))
    await new.close()
    async with pair.recovered("new-base", "recovered") as sql:
        assert await numbers(sql) == [1, 2, 3, 4, 5]

    for file in pair.operator.archive.iterdir():
        if file.name > lost_file:
            file.unlink()
    async with pair.recovered("base", "recovered-before-gap") as sql:
        assert await numbers(sql) == [1]


async def has_rows(sql: Sql, expected: list[int]) -> bool:
    return await numbers(sql) == expected


async def has_setting(sql: Sql, name: str, value: str) -> bool:
    return bool(await sql.fetchval(f"SHOW {name}") == value)
