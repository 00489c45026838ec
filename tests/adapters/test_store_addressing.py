"""Buckets in the host of a URL: every operation works, and links for the public endpoint, too."""

import socket
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from segmentql.adapters.multipart_upload import PART_BYTES
from segmentql.adapters.pages import page_routes
from segmentql.adapters.storage import Storage
from segmentql.local.accounts import server_account
from segmentql.local.data_dir import open_data_folder
from segmentql.local.ports import ServerPorts
from segmentql.local.process import ChildProcess
from segmentql.local.store import store_port, store_program, store_settings
from segmentql.settings import Settings
from tests.files import chunks, http_get, sample_bytes

DOMAIN = "s3.localhost"


@pytest.fixture(autouse=True)
def resolved_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve the hosts below `DOMAIN` to 127.0.0.1, as a name server of the store does."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        is_ours = isinstance(name, str) and (name == DOMAIN or name.endswith(f".{DOMAIN}"))
        return resolve("127.0.0.1" if is_ours else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture(scope="module")
async def virtual_settings(settings: Settings) -> AsyncIterator[Settings]:
    """Run a SeaweedFS that finds the bucket in the host."""
    with tempfile.TemporaryDirectory(prefix="segmentql-store-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        data = open_data_folder(folder / "data", server_account(), lambda line: None)
        ports = ServerPorts(None)
        program = store_program(data, ports)
        program = replace(program, command=[*program.command, f"-s3.domainName={DOMAIN}"])
        process = ChildProcess(program)
        await process.start()
        try:
            port = store_port(ports)
            changes = {
                **store_settings(data, port),
                "s3_endpoint_url": f"http://{DOMAIN}:{port}",
                "s3_addressing": "virtual",
            }
            yield settings.model_copy(update=changes)
        finally:
            await process.kill()


async def test_every_operation_works_with_the_bucket_in_the_host(
    virtual_settings: Settings, key: str
) -> None:
    storage = Storage(virtual_settings)
    small, large = b"a,b\n", sample_bytes(PART_BYTES + 1)
    assert await storage.ping(seconds=5)
    await storage.set_up()
    await storage.set_up()
    await storage.check()
    for data in (small, large):
        await storage.upload(key, chunks(data), content_type="text/csv")
        assert await storage.size(key) == len(data)
        async with storage.read(key) as pieces:
            assert b"".join([piece async for piece in pieces]) == data
        url = await storage.download_url(key, seconds=60, file_name="a.csv")
        assert urlsplit(url).hostname == f"{virtual_settings.s3_bucket}.{DOMAIN}"
        assert urlsplit(url).path == f"/{key}"
        assert (await http_get(url)).content == data
    assert await storage.copy(key, f"{key}.copy") == len(large)
    link = await storage.upload_link(key, size_bytes=len(small), expires_in_seconds=60)
    async with httpx.AsyncClient() as client:
        response = await client.put(link.url, content=small, headers=dict(link.headers))
        assert response.status_code == 200
    assert await storage.size(key) == len(small)
    await storage.abort_stale_uploads(older_than_seconds=0)
    await storage.delete_with_parts(key)
    await storage.delete([f"{key}.copy"])
    await storage.close()


@pytest.mark.parametrize(
    ("addressing", "host"), [("path", DOMAIN), ("virtual", f"segmentql-reports.{DOMAIN}")]
)
async def test_links_for_the_public_endpoint_use_the_addressing(
    virtual_settings: Settings, key: str, addressing: str, host: str
) -> None:
    port = urlsplit(virtual_settings.store.endpoint_url).port
    # The public endpoint is the same host in another spelling, so it has a client of its own.
    changed = virtual_settings.model_copy(
        update={
            "s3_endpoint_url": f"http://{DOMAIN}:{port}",
            "s3_public_endpoint_url": f"http://{DOMAIN.upper()}:{port}",
            "s3_addressing": addressing,
        }
    )
    storage = Storage(changed)
    await storage.set_up()
    await storage.upload(key, chunks(b"a\n"), content_type="text/csv")
    url = await storage.download_url(key, seconds=60, file_name="a.csv")
    assert urlsplit(url).hostname == host
    assert (await http_get(url)).content == b"a\n"
    await storage.close()


async def test_page_may_send_requests_to_the_host_of_the_bucket(
    virtual_settings: Settings,
) -> None:
    (route, *_) = page_routes(virtual_settings)
    transport = httpx.ASGITransport(app=route.app)  # type: ignore[attr-defined]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        policy = (await client.get("/")).headers["content-security-policy"]
    port = urlsplit(virtual_settings.store.endpoint_url).port
    assert f"http://{virtual_settings.s3_bucket}.{DOMAIN}:{port}" in policy
