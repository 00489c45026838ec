"""PostgreSQL clusters beside the one of the test run: crashed, restored or promoted."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from segmentql.adapters import migrations
from segmentql.local import ChildProcess, LocalServers
from segmentql.local.accounts import server_account
from segmentql.local.binaries import find_postgres_bin
from segmentql.local.data_dir import open_data_folder
from segmentql.local.ports import ServerPorts
from segmentql.local.postgres import (
    DATABASE,
    OWNER_ROLE,
    SERVICE_ROLE,
    SUPERUSER,
    postgres_program,
    postgres_url,
)

ACCOUNT: Final = server_account()


def cluster_servers(
    servers: LocalServers, folder: Path, settings: Mapping[str, str]
) -> LocalServers:
    """Return the servers with a PostgreSQL of its own, which is not started.

    Args:
        servers: The servers of the test run.
        folder: The data folder. An existing cluster in it is used.
        settings: Settings of PostgreSQL.
    """
    data = open_data_folder(folder, ACCOUNT, print)
    port = ServerPorts(None).port("PostgreSQL")
    return replace(
        servers,
        postgres=ChildProcess(postgres_program(data, port, settings)),
        superuser_url=postgres_url(data, SUPERUSER, port),
        owner_url=postgres_url(data, OWNER_ROLE, port),
        service_url=postgres_url(data, SERVICE_ROLE, port),
    )


@contextlib.asynccontextmanager
async def migrated_cluster(
    servers: LocalServers, folder: Path, settings: Mapping[str, str]
) -> AsyncIterator[LocalServers]:
    """Run another PostgreSQL with a migrated database, and kill it at the end."""
    running = cluster_servers(servers, folder, settings)
    await running.postgres.start()
    try:
        await asyncio.to_thread(migrations.upgrade, running.settings(DATABASE))
        yield running
    finally:
        await running.postgres.kill()


async def run_client(program: str, *arguments: str) -> None:
    """Run a client program of PostgreSQL, such as `pg_dump`, as the account of the servers.

    Raises:
        AssertionError: the program failed.
    """
    process = await asyncio.create_subprocess_exec(
        find_postgres_bin(ACCOUNT) / program,
        *arguments,
        cwd="/",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        user=ACCOUNT.user_id if ACCOUNT else None,
        group=ACCOUNT.group_id if ACCOUNT else None,
        extra_groups=[] if ACCOUNT else None,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
