"""The inner ports of the embedded store reject other accounts of this machine."""

import asyncio
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from segmentql.adapters.storage import Storage
from segmentql.local import LocalServers, local_servers
from segmentql.local.probes import http_get
from segmentql.local.store import STOP_TIMEOUT_SECONDS

HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""The first bytes of a gRPC client; the server's response begins with its own settings."""
SHELL_SECONDS = 5
NOBODY = 65534


@pytest.fixture
async def running(open_folder: Path) -> AsyncIterator[LocalServers]:
    async with local_servers(open_folder / "data", postgres_settings={"fsync": "off"}) as servers:
        yield servers


def ports(servers: LocalServers, kind: str) -> dict[str, int]:
    """Return the store's ports by part; `kind` is `port` or `port.grpc`."""
    options = dict(
        word.removeprefix("-").split("=", 1)
        for word in servers.store.program.command
        if "=" in word
    )
    return {
        name.split(".")[0]: int(value)
        for name, value in options.items()
        if name.split(".", 1)[1:] == [kind] and name.split(".")[0] != "webdav"
    }


async def stored(servers: LocalServers) -> Storage:
    """Run the store with one file in it."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"data"

    storage = Storage(servers.settings("segmentql"))
    await storage.set_up()
    await storage.upload("kept", chunks(), content_type="text/plain")
    return storage


async def downloaded(link: str) -> bytes:
    async with httpx.AsyncClient(timeout=30) as client:
        return (await client.get(link)).content


async def answer(port: int, tls: ssl.SSLContext | None) -> bytes:
    """Return the response to a gRPC client without a certificate."""
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
            try:
                writer.write(HTTP2)
                return await reader.read(9)
            finally:
                writer.close()
    except OSError:  # an SSLError is one
        return b""


def without_certificate(*protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


async def test_inner_ports_reject_grpc_without_the_certificate(
    running: LocalServers,
) -> None:
    grpc_ports = ports(running, "port.grpc")
    assert sorted(grpc_ports) == ["admin", "filer", "master", "s3", "volume"]
    for part, port in grpc_ports.items():
        # There is no response, or the alert of TLS.
        assert (await answer(port, None))[:1] in {b"", b"\x15"}, part
        assert await answer(port, without_certificate("h2")) == b"", part


async def test_inner_ports_reject_http_without_the_certificate(
    running: LocalServers,
) -> None:
    grpc_ports = ports(running, "port")
    assert sorted(grpc_ports) == ["admin", "filer", "master", "s3", "volume"]
    for part in ("admin", "filer", "master", "volume"):
        # The admin server may listen a moment later than the others.
        assert (await http_get("127.0.0.1", grpc_ports[part], "/"))[0] in {0, 400}, part
        assert (await http_get("127.0.0.1", grpc_ports[part], "/", tls=without_certificate()))[
            0
        ] == 0, part


async def test_master_rejects_bucket_deletion_without_a_certificate(running: LocalServers) -> None:
    storage = await stored(running)
    link = await storage.download_url("kept", seconds=60, file_name="kept")
    port = ports(running, "port")["master"]
    path = f"/col/delete?collection={running.settings('segmentql').s3_bucket}"
    assert (await http_get("127.0.0.1", port, path))[0] == 400
    assert (await http_get("127.0.0.1", port, path, tls=without_certificate()))[0] == 0
    assert await downloaded(link) == b"data"
    await storage.close()


@pytest.mark.slow  # stops and starts the store
async def test_idle_connection_does_not_delay_the_stop(running: LocalServers) -> None:
    storage = await stored(running)
    link = await storage.download_url("kept", seconds=60, file_name="kept")
    await storage.close()
    _, writer = await asyncio.open_connection("127.0.0.1", ports(running, "port")["volume"])
    began = time.monotonic()
    await running.store.stop()
    assert time.monotonic() - began < 2 * STOP_TIMEOUT_SECONDS
    writer.close()
    await running.store.start()
    assert await downloaded(link) == b"data"


@pytest.mark.slow  # waits until the shell has tried for a while
@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another account")
async def test_weed_shell_of_another_account_is_rejected(running: LocalServers) -> None:
    storage = await stored(running)
    await storage.close()
    http, grpc = ports(running, "port")["master"], ports(running, "port.grpc")["master"]
    weed, master = running.store.program.command[0], f"127.0.0.1:{http}.{grpc}"
    shell_output = await asyncio.to_thread(
        run_shell, weed, master, b"volume.list\ncollection.list\n"
    )
    assert b"segmentql-reports" not in shell_output


def run_shell(weed: str, master: str, commands: bytes) -> bytes:
    """Return the output of `weed shell` within some seconds as another account."""
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if not shutil.which("setpriv") or subprocess.call([*as_nobody, "test", "-x", weed]):
        pytest.skip("another account cannot run weed here")
    with subprocess.Popen(
        [*as_nobody, weed, "shell", f"-master={master}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env={"HOME": "/"},
    ) as shell:
        try:
            shell_output, _ = shell.communicate(commands + b"exit\n", SHELL_SECONDS)
        except subprocess.TimeoutExpired:
            shell.kill()
            shell_output, _ = shell.communicate()
    return shell_output


async def test_private_key_of_the_store_is_readable_by_its_account_only(
    running: LocalServers,
) -> None:
    key = running.folder / "store" / "tls.key"
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_text()
    await running.store.kill()
    await running.store.start()
    assert key.read_text() != before


def test_production_install_needs_no_certificate_library() -> None:
    script = (
        "import sys; sys.modules['cryptography'] = None\n"
        "import segmentql.cli, segmentql.local, segmentql.local.certificates as module\n"
        "module.make_certificate()"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.stderr.splitlines()[-1] == (
        "segmentql.errors.LocalServerError: no certificate for the object store:"
        " pip install 'segmentql[local]', or set SEGMENTQL_S3_ENDPOINT_URL"
    )
