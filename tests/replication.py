"""A standby of a local PostgreSQL, by streaming replication on loopback."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import asyncpg

from segmentql.local import ChildProcess, LocalServers, with_database
from segmentql.local.accounts import server_account
from segmentql.local.data_dir import open_data_folder
from segmentql.local.ports import ServerPorts
from segmentql.local.postgres import (
    OWNER_ROLE,
    SERVICE_ROLE,
    SUPERUSER,
    postgres_program,
    postgres_url,
)
from segmentql.settings import Settings
from tests.history.clusters import run_client

REMOTE_APPLY: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "remote_apply",
}
"""Settings of a primary whose commits wait for the standby after `commit_synchronously`."""

PATIENCE_SECONDS: Final = 60
POLL_SECONDS: Final = 0.05

_IS_STREAMING: Final = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
_IS_SYNCHRONOUS: Final = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"


@asynccontextmanager
async def standby_of(
    primary: LocalServers, folder: Path, settings: Mapping[str, str]
) -> AsyncIterator[LocalServers]:
    """Run a streaming standby, and kill it at the end. It uses the passwords of the primary.

    Args:
        primary: The servers, of which PostgreSQL runs.
        folder: The data folder of the standby, which is created.
        settings: Settings of the standby.
    """
    account = server_account()
    data = open_data_folder(folder, account, print)
    primary_folder = primary.postgres.program.pid_file.parents[1]
    shutil.copy(primary_folder / "secrets.json", data.path)
    await run_client(
        "pg_basebackup",
        f"--dbname={with_database(primary.superuser_url, SUPERUSER)}",
        f"--pgdata={data.server_folder('postgres') / 'data'}",
        "--write-recovery-conf",
        "--checkpoint=fast",
        "--no-sync",
    )
    port = ServerPorts(None).port("PostgreSQL")
    program = postgres_program(data, port, settings)
    # A standby creates no roles.
    process = ChildProcess(replace(program, after_ready=partial(wait_until_streaming, primary)))
    standby = replace(
        primary,
        postgres=process,
        folder=data.path,
        superuser_url=postgres_url(data, SUPERUSER, port),
        owner_url=postgres_url(data, OWNER_ROLE, port),
        service_url=postgres_url(data, SERVICE_ROLE, port),
    )
    try:
        await process.start()
        yield standby
    finally:
        await process.kill()


async def wait_until_streaming(primary: LocalServers) -> None:
    """Wait until a standby of the primary streams."""
    sql = await asyncpg.connect(with_database(primary.superuser_url, SUPERUSER))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await sql.fetchval(_IS_STREAMING):
                await asyncio.sleep(POLL_SECONDS)
    finally:
        sql.terminate()


async def commit_synchronously(primary: LocalServers) -> None:
    """Make each commit of the primary wait until its standby has replayed it."""
    sql = await asyncpg.connect(with_database(primary.superuser_url, SUPERUSER))
    try:
        await sql.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await sql.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await sql.fetchval(_IS_SYNCHRONOUS):
                await asyncio.sleep(POLL_SECONDS)
    finally:
        sql.terminate()


def with_replica(settings: Settings, standby: LocalServers) -> Settings:
    """Return the settings of a service that reads the same database of a standby."""
    database = settings.database_url.rpartition("/")[2]
    return settings.model_copy(
        update={"database_read_url": standby.settings(database).database_url}
    )


@contextmanager
def suspended_server(server: LocalServers) -> Iterator[None]:
    """Suspend PostgreSQL with its sessions: connections stay open, and nothing responds."""
    pid = server.postgres.pid
    assert pid is not None
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for process in (pid, *map(int, children)):
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in (pid, *map(int, children)):
            os.kill(process, signal.SIGCONT)
