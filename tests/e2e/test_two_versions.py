"""Old and new versions work side by side while and after the database is migrated."""

import io
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import pytest
from redis import Redis

from segmentql.adapters.revisions import newest_revision
from segmentql.local import LocalServers
from segmentql.local.orphans import ON_LINUX
from segmentql.settings import Settings
from tests.cli.command_process import run
from tests.conftest import Sql
from tests.databases import blank_database
from tests.e2e.fleet import Command, ServiceProcess, started
from tests.e2e.service_load import Load, StrictConsumer, store_load_rows
from tests.e2e.test_feed import check
from tests.new_version import add_migration, copy_migrations, copy_source

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

ROOT: Final = Path(__file__).parents[2]
VERSIONS: Final = ROOT / "alembic" / "versions"

REQUESTS_ALONE: Final = 100
REQUESTS_TOGETHER: Final = 400

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not ON_LINUX, reason="needs all loopback addresses, which Linux has"),
]


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout


@pytest.fixture
def old_source(tmp_path: Path) -> Path:
    """Return a folder with the version before the newest migration, from the history of git."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout, for the previous version")
    if _git("rev-parse", "--is-shallow-repository").strip() == b"true":
        pytest.skip("the checkout is shallow, so it does not have the previous version")
    newest = max(VERSIONS.glob("[0-9]*.py"))
    added = _git("log", "--diff-filter=A", "--format=%H", "--", str(newest)).decode().split()
    # Before its first commit, the newest migration is not in HEAD.
    revision = f"{added[-1]}^" if added else "HEAD"
    folder = tmp_path / "old"
    with tarfile.open(fileobj=io.BytesIO(_git("archive", revision, "src", "alembic"))) as archive:
        archive.extractall(folder, filter="data")
    assert not (folder / "alembic" / "versions" / newest.name).exists()
    return folder / "src"


@pytest.fixture
async def blank(servers: LocalServers, s3: "S3Client") -> AsyncIterator[Settings]:
    """Yield the settings of a service with an empty database and an empty Redis."""
    with Redis.from_url(servers.redis_url) as redis:
        redis.flushall()
    async with blank_database(servers) as settings:
        yield settings


@dataclass(frozen=True)
class Version:
    """A version of the service, which runs from its source."""

    source: Path
    settings: Settings
    folder: Path
    """The folder of the logs."""

    async def run(self, command: str) -> tuple[int | None, str]:
        """Run a command; return its exit code and output."""
        return await run(self.settings, self.folder, command, PYTHONPATH=str(self.source))

    async def migrate(self) -> None:
        code, output = await self.run("migrate")
        assert code == 0, output

    def process(self, command: Command, host: str) -> ServiceProcess:
        """Prepare a process that listens on `host`."""
        log = self.folder / f"{command}-{host}.log"
        changes = {"SEGMENTQL_AUTH": "off", "PYTHONPATH": str(self.source)}
        return ServiceProcess(command, self.settings, log, SEGMENTQL_HOST=host, **changes)


async def test_old_and_new_processes_work_side_by_side(
    blank: Settings, inside: Sql, old_source: Path, tmp_path: Path
) -> None:
    old_version = Version(old_source, blank, tmp_path)
    new_version = Version(ROOT / "src", blank, tmp_path)
    commands: list[Command] = ["serve", "worker"]
    old = [old_version.process(command, "127.0.0.2") for command in commands]
    new = [new_version.process(command, "127.0.0.3") for command in commands]
    await old_version.migrate()
    before = await inside.fetchval("SELECT version_num FROM alembic_version")
    position = await store_load_rows(inside)
    async with AsyncExitStack() as stack:
        old_client, new_client = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=each[0].url, timeout=60, trust_env=False)
            )
            for each in (old, new)
        ]
        await stack.enter_async_context(started(old))
        addresses = [old[0].url]
        consumers = [
            StrictConsumer(f"consumer {number}", addresses, number > 0) for number in range(3)
        ]
        load = Load([old_client], consumers=consumers)
        async with load.running():
            await load.works(REQUESTS_ALONE)
            await new_version.migrate()
            assert await inside.fetchval("SELECT version_num FROM alembic_version") > before
            await load.works(REQUESTS_ALONE)
            await stack.enter_async_context(started(new))
            load.clients.append(new_client)
            addresses.append(new[0].url)
            await load.works(REQUESTS_TOGETHER)
            # As a proxy does: first no new requests, then the end of the process.
            load.clients.remove(old_client)
            addresses.remove(old[0].url)
            await load.works(REQUESTS_ALONE)
            for each in old:
                await each.stop()
            await load.works(REQUESTS_ALONE)
        failures = [*load.failures, *(text for each in consumers for text in each.failures)]
        assert failures == []
        await load.check(inside)
        await check(consumers, inside, after=position)


async def test_old_processes_start_again_after_the_migration(
    blank: Settings, inside: Sql, tmp_path: Path
) -> None:
    """A new version has one more migration, and then one that does not support this version."""
    old_version = Version(ROOT / "src", blank, tmp_path)
    new_version = Version(copy_source(tmp_path / "new"), blank, tmp_path)
    scripts = copy_migrations(tmp_path / "new")
    expanded = add_migration(scripts, 1, oldest_compatible=newest_revision())

    apis = [old_version.process("serve", host) for host in ("127.0.0.2", "127.0.0.3")]
    worker = old_version.process("worker", "127.0.0.2")
    await old_version.migrate()
    await store_load_rows(inside)
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=each.url, timeout=60, trust_env=False)
            )
            for each in apis
        ]
        await stack.enter_async_context(started([*apis, worker]))
        load = Load(list(clients))
        async with load.running():
            await load.works(REQUESTS_ALONE)
            await new_version.migrate()
            assert await inside.fetchval("SELECT version_num FROM alembic_version") == expanded
            await worker.kill()
            await worker.start()
            load.clients.remove(clients[0])
            await load.works(REQUESTS_ALONE)
            await apis[0].kill()
            await apis[0].start()
            load.clients[:] = clients[:1]
            await load.works(REQUESTS_TOGETHER)
        for restarted in (apis[0], worker):
            assert f"revision {expanded}, which is newer" in restarted.log.read_text()
        assert load.failures == []
        await load.check(inside)
    contracted = f"{int(expanded) + 1:04}"
    add_migration(scripts, 2, oldest_compatible=contracted)
    await new_version.migrate()
    for command in ("serve", "worker", "migrate"):
        code, output = await old_version.run(command)
        assert code == 1
        assert f"Error: the database is at revision {contracted}, which this" in output
        assert f"supports only versions from revision {contracted};" in output
