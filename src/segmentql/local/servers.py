"""PostgreSQL, Redis and the object store without the API and the worker, for tests and tools."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
from sqlalchemy.engine import make_url

from segmentql.local.accounts import server_account
from segmentql.local.concurrency import run_concurrently
from segmentql.local.data_dir import open_data_folder
from segmentql.local.locks import lock
from segmentql.local.ports import ServerPorts
from segmentql.local.postgres import (
    OWNER_ROLE,
    SERVICE_ROLE,
    SUPERUSER,
    postgres_program,
    postgres_url,
)
from segmentql.local.process import ChildProcess
from segmentql.local.redis import redis_program, redis_url
from segmentql.local.store import store_port, store_program, store_settings
from segmentql.settings import Settings


@dataclass(frozen=True)
class LocalServers:
    """The running servers and their addresses.

    A server may be stopped, killed and restarted. A restart keeps its address.
    """

    superuser_url: str = field(repr=False)
    owner_url: str = field(repr=False)
    service_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    store_settings: Mapping[str, str] = field(repr=False)
    """The settings of a service that uses the store, by field name."""
    postgres: ChildProcess
    redis: ChildProcess
    store: ChildProcess
    folder: Path
    """The data folder. It differs from the requested one if the fallback folder is used."""

    def settings(self, database: str) -> Settings:
        """Return the settings of a service that uses a database; `.env` has no effect."""
        return Settings(
            _env_file=None,
            auth="off",
            database_url=with_database(self.service_url, database),
            migration_database_url=with_database(self.owner_url, database),
            redis_url=self.redis_url,
            s3_endpoint_url=self.store_settings["s3_endpoint_url"],
            s3_access_key=self.store_settings["s3_access_key"],
            s3_secret_key=self.store_settings["s3_secret_key"],
        )


def with_database(url: str, database: str) -> str:
    """Return a PostgreSQL URL with another database name, in the form of asyncpg and libpq."""
    return (
        make_url(url)
        .set(drivername="postgresql", database=database)
        .render_as_string(hide_password=False)
    )


@asynccontextmanager
async def local_servers(
    folder: Path, *, postgres_settings: Mapping[str, str] | None = None
) -> AsyncIterator[LocalServers]:
    """Run the servers until the exit, which must happen in the thread of the entry.

    Linux stops the servers when that thread ends.

    Args:
        folder: The data folder. It is created if needed, and not deleted afterwards.
        postgres_settings: PostgreSQL settings that override the defaults, such as
            `{"fsync": "off"}`.

    Raises:
        LocalServerError: A server does not start, or another process uses the folder.
    """
    data = open_data_folder(folder, server_account(), lambda line: click.echo(line, err=True))
    with lock(data):
        ports = ServerPorts(None)
        postgres_port, redis_port = ports.port("PostgreSQL"), ports.port("Redis")
        processes = (
            ChildProcess(postgres_program(data, postgres_port, postgres_settings)),
            ChildProcess(redis_program(data, redis_port)),
            ChildProcess(store_program(data, ports)),
        )
        async with AsyncExitStack() as stack:
            for process in processes:
                stack.push_async_callback(process.stop)
            await run_concurrently(*(process.start() for process in processes))
            yield LocalServers(
                superuser_url=postgres_url(data, SUPERUSER, postgres_port),
                owner_url=postgres_url(data, OWNER_ROLE, postgres_port),
                service_url=postgres_url(data, SERVICE_ROLE, postgres_port),
                redis_url=redis_url(data, redis_port),
                store_settings=store_settings(data, store_port(ports)),
                postgres=processes[0],
                redis=processes[1],
                store=processes[2],
                folder=data.path,
            )
