"""PostgreSQL, Redis and the object store, for tests and tools that need them without the rest."""

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
from segmentql.local.postgres import OWNER, SERVICE, SUPERUSER, postgres, postgres_url
from segmentql.local.process import ChildProcess
from segmentql.local.redis import redis, redis_url
from segmentql.local.store import store, store_port, store_settings
from segmentql.settings import Settings


@dataclass(frozen=True)
class LocalServers:
    """The servers, started, with their addresses; they may be stopped, killed and restarted.

    The addresses stay true: a restart keeps the port.
    """

    superuser_url: str = field(repr=False)
    owner_url: str = field(repr=False)
    service_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    store_settings: Mapping[str, str] = field(repr=False)
    """By field name."""
    postgres: ChildProcess
    redis: ChildProcess
    store: ChildProcess
    folder: Path
    """Where the data are: not the asked one where root's stand-in had to be used."""

    def settings(self, database: str) -> Settings:
        """The settings of a service on one of the server's databases, whatever `.env` says."""
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
    """The same server and role, another database; as asyncpg and libpq take it."""
    return (
        make_url(url)
        .set(drivername="postgresql", database=database)
        .render_as_string(hide_password=False)
    )


@asynccontextmanager
async def local_servers(
    folder: Path, *, postgres_settings: Mapping[str, str] | None = None
) -> AsyncIterator[LocalServers]:
    """Run the servers in `folder` (made when missing, kept afterwards) until the exit.

    `postgres_settings` are added to ours, such as `{"fsync": "off"}`. To be left on the thread
    that entered it: Linux ends the servers when that thread ends.

    Raises:
        LocalServerError: a server cannot be started, or another process uses the folder.
    """
    data = open_data_folder(folder, server_account(), lambda line: click.echo(line, err=True))
    with lock(data):
        ports = ServerPorts(None)
        postgres_port, redis_port = ports.port("PostgreSQL"), ports.port("Redis")
        processes = (
            ChildProcess(postgres(data, postgres_port, postgres_settings)),
            ChildProcess(redis(data, redis_port)),
            ChildProcess(store(data, ports)),
        )
        async with AsyncExitStack() as stack:
            for process in processes:
                stack.push_async_callback(process.stop)
            await run_concurrently(*(process.start() for process in processes))
            yield LocalServers(
                superuser_url=postgres_url(data, SUPERUSER, postgres_port),
                owner_url=postgres_url(data, OWNER, postgres_port),
                service_url=postgres_url(data, SERVICE, postgres_port),
                redis_url=redis_url(data, redis_port),
                store_settings=store_settings(data, store_port(ports)),
                postgres=processes[0],
                redis=processes[1],
                store=processes[2],
                folder=data.path,
            )
