"""Fixtures of the real servers, of a migrated database, of a bucket, and of a worker process.

`conftest.py` registers this module as a plugin, so all tests may use its fixtures.
"""

import asyncio
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest

from segmentql.adapters import connections, migrations
from segmentql.adapters.s3 import S3
from segmentql.adapters.storage import Storage
from segmentql.local import LocalServers, local_servers, with_database
from segmentql.settings import Settings
from tests.conftest import (
    PATIENCE_SECONDS,
    READS_REPLICA,
    RunWorker,
    Sql,
    environment,
    make_database,
    until,
)
from tests.databases import blank_database
from tests.pooler import IS_POOLED, pooled
from tests.replication import REMOTE_APPLY, commit_synchronously, standby_of, with_replica

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

FAST_NOT_SAFE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@pytest.fixture
def long_connection_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let services wait longer for a connection, which takes seconds on a busy machine."""
    monkeypatch.setattr(connections, "CONNECT_SECONDS", PATIENCE_SECONDS)


@pytest.fixture(scope="session")
async def servers() -> AsyncIterator[LocalServers]:
    """Run PostgreSQL, Redis and the object store, and delete their data at the end."""
    with tempfile.TemporaryDirectory(prefix="segmentql-tests-") as name:
        folder = Path(name)
        # the servers that root starts run under another account, which must enter the folder
        folder.chmod(0o755)
        changes = REMOTE_APPLY if READS_REPLICA else FAST_NOT_SAFE
        async with local_servers(folder, postgres_settings=changes) as running:
            yield running
            # Their data is deleted next, so an orderly stop is unnecessary.
            for server in (running.store, running.redis, running.postgres):
                await server.kill()


@pytest.fixture(scope="session")
async def standby(servers: LocalServers) -> AsyncIterator[LocalServers | None]:
    """Run a synchronous standby that serves all reads, if SEGMENTQL_TEST_REPLICA is 1."""
    if not READS_REPLICA:
        yield None
        return
    folder = servers.folder.with_name(f"{servers.folder.name}-standby")
    async with standby_of(servers, folder, {"fsync": "off"}) as running:
        await commit_synchronously(servers)
        yield running
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
async def template(servers: LocalServers) -> str:
    """Return the name of a migrated database without connections, for use as a template."""
    settings = servers.settings("segmentql")
    await asyncio.to_thread(migrations.upgrade, settings)
    return "segmentql"


@pytest.fixture(scope="session")
async def settings(
    servers: LocalServers, template: str, standby: LocalServers | None
) -> AsyncIterator[Settings]:
    """Return the settings of a service with a migrated database for this run."""
    await make_database(servers, "run", template=template)
    direct = servers.settings("run").model_copy(update=external_store())
    if standby:
        direct = with_replica(direct, standby)
    if not IS_POOLED:
        yield direct
        return
    async with pooled(direct) as settings:
        yield settings


def external_store() -> dict[str, str]:
    """Return the settings of the S3 store in `SEGMENTQL_TEST_S3_URL`, if it is set.

    It is like http://ACCESS-KEY:SECRET-KEY@127.0.0.1:9000. The bucket must be one for tests only.
    """
    if not (text := os.environ.get("SEGMENTQL_TEST_S3_URL")):
        return {}
    url = urlsplit(text)
    return {
        "s3_endpoint_url": f"{url.scheme}://{url.hostname}:{url.port}",
        "s3_access_key": unquote(url.username or ""),
        "s3_secret_key": unquote(url.password or ""),
        "s3_bucket": "segmentql-tests",
    }


@pytest.fixture(scope="session")
async def s3(settings: Settings) -> AsyncIterator["S3Client"]:
    """Open an S3 client of the object store, whose bucket exists."""
    storage = Storage(settings)
    await storage.set_up()
    await storage.close()
    opened = S3(settings.store)
    yield await opened.client()
    await opened.close()


@pytest.fixture
async def storage(settings: Settings, s3: "S3Client") -> AsyncIterator[Storage]:
    """Open the bucket as the service uses it."""
    opened = Storage(settings)
    yield opened
    await opened.close()


@pytest.fixture
async def run_worker(settings: Settings, sql: Sql, tmp_path: Path) -> RunWorker:
    """Return a function that starts `segmentql worker` on this run's servers."""
    numbers = itertools.count(1)

    @asynccontextmanager
    async def running(**changes: str) -> AsyncIterator[asyncio.subprocess.Process]:
        path = tmp_path / f"worker-{next(numbers)}.log"
        log = path.open("wb")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "segmentql",
            "worker",
            env=environment(settings, **changes),
            stderr=log,
        )
        try:
            await until(lambda: _has_started(path))
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
            log.close()

    return running


@pytest.fixture
async def blank(servers: LocalServers) -> AsyncIterator[Settings]:
    """Create a database without tables, and yield the settings of a service that uses it."""
    async with blank_database(servers) as settings:
        yield settings


@pytest.fixture
async def inside(servers: LocalServers, blank: Settings) -> AsyncIterator[Sql]:
    """Connect to the database of `blank` as a superuser."""
    connection = await asyncpg.connect(
        with_database(servers.superuser_url, blank.database_url.rpartition("/")[2])
    )
    yield connection
    await connection.close()


async def _has_started(log: Path) -> bool:
    return "worker_started" in log.read_text()
