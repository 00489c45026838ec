"""The store accepts through an upload link only the file that the link was signed for."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from segmentql.adapters.storage import Storage
from segmentql.adapters.stored_file import UploadLink
from segmentql.settings import Settings
from tests.conftest import until
from tests.files import sample_bytes

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

SIZE = 1000


async def send(link: UploadLink, body: bytes, **headers: str) -> httpx.Response:
    """Upload as a client with the headers of the link, except a length that differs."""
    async with httpx.AsyncClient() as client:
        wanted = {**link.headers, "Content-Length": str(len(body)), **headers}
        return await client.request(link.method, link.url, content=body, headers=wanted)


async def stored(s3: "S3Client", settings: Settings, key: str) -> bytes | None:
    """Return the content of a file, or None if it does not exist."""
    try:
        response = await s3.get_object(Bucket=settings.s3_bucket, Key=key)
    except s3.exceptions.NoSuchKey:
        return None
    return await response["Body"].read()


@pytest.fixture
async def link(storage: Storage, key: str) -> UploadLink:
    return await storage.upload_link(key, size_bytes=SIZE, expires_in_seconds=60)


@pytest.mark.parametrize("size_bytes", [0, 1, 6 * 1024 * 1024])
async def test_file_of_the_signed_size_is_stored(
    storage: Storage, s3: "S3Client", settings: Settings, key: str, size_bytes: int
) -> None:
    link = await storage.upload_link(key, size_bytes=size_bytes, expires_in_seconds=60)
    assert (link.method, link.headers) == ("PUT", {"Content-Length": str(size_bytes)})
    response = await send(link, sample_bytes(size_bytes))
    assert response.status_code == 200, response.text
    assert await stored(s3, settings, key) == sample_bytes(size_bytes)


@pytest.mark.parametrize("size_bytes", [0, SIZE - 1, SIZE + 1, 10 * SIZE])
async def test_file_of_another_size_is_rejected(
    link: UploadLink, s3: "S3Client", settings: Settings, key: str, size_bytes: int
) -> None:
    response = await send(link, sample_bytes(size_bytes))
    assert (response.status_code, "SignatureDoesNotMatch" in response.text) == (403, True)
    assert await stored(s3, settings, key) is None


async def test_file_of_undeclared_size_is_rejected(
    link: UploadLink, s3: "S3Client", settings: Settings, key: str
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield sample_bytes(SIZE)

    async with httpx.AsyncClient() as client:
        response = await client.put(link.url, content=body())
    assert response.request.headers["transfer-encoding"] == "chunked"
    assert response.status_code == 403
    assert await stored(s3, settings, key) is None


@pytest.mark.parametrize("sent_bytes", [SIZE - 1, SIZE + 1])
async def test_client_that_declares_the_signed_size_stores_that_size_or_nothing(
    link: UploadLink, s3: "S3Client", settings: Settings, key: str, sent_bytes: int
) -> None:
    """The client sends another number of bytes than its header says."""
    url = urlsplit(link.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = (
        f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\n"
        f"Content-Length: {SIZE}\r\nConnection: close\r\n\r\n"
    )
    data = sample_bytes(SIZE + 1)[:sent_bytes]
    writer.write(head.encode() + data)
    writer.write_eof()
    status = (await reader.readline()).split()[1]
    await reader.read()
    writer.close()
    is_complete = sent_bytes >= SIZE
    assert (status == b"200") == is_complete
    assert await stored(s3, settings, key) == (data[:SIZE] if is_complete else None)


async def test_link_is_for_one_key_one_method_and_one_operation(
    link: UploadLink, s3: "S3Client", settings: Settings, key: str
) -> None:
    body = sample_bytes(SIZE)
    changed: list[dict[str, Any]] = [
        {"url": link.url.replace(f"{key}?", f"{key}x?")},
        {"url": link.url.replace(f"{key}?", "reports/1.csv?")},
        {"url": f"{link.url}&tagging"},
        {"url": f"{link.url}&acl"},
        {"url": f"{link.url}&partNumber=1&uploadId=1"},
        {"method": "POST"},
        {"method": "DELETE"},
        {"method": "GET"},
    ]
    async with httpx.AsyncClient() as client:
        for changes in changed:
            request: dict[str, Any] = {"url": link.url, "method": "PUT", **changes}
            response = await client.request(**request, content=body)
            assert response.status_code in {403, 405}, changes
    assert await stored(s3, settings, key) is None


async def test_client_cannot_copy_a_file_of_others_into_its_own(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    """The header for that is not signed. With it, a link would be a link to every file."""
    await s3.put_object(Bucket=settings.s3_bucket, Key=f"{key}/secret", Body=b"secret")
    link = await storage.upload_link(key, size_bytes=0, expires_in_seconds=60)
    source = f"/{settings.s3_bucket}/{key}/secret"
    response = await send(link, b"", **{"x-amz-copy-source": source})
    assert response.status_code == 403
    assert await stored(s3, settings, key) is None
    for name in ("x-amz-acl", "x-amz-meta-name", "x-amz-tagging"):
        assert (await send(link, b"", **{name: "public-read"})).status_code == 403, name
    assert (await send(link, b"")).status_code == 200


async def test_signed_content_type_is_required(storage: Storage, key: str) -> None:
    link = await storage.upload_link(
        key, size_bytes=SIZE, expires_in_seconds=60, content_type="text/csv"
    )
    assert link.headers == {"Content-Length": str(SIZE), "Content-Type": "text/csv"}
    body = sample_bytes(SIZE)
    assert (await send(link, body, **{"Content-Type": "text/html"})).status_code == 403
    assert (await send(link, body)).status_code == 200


async def test_unsigned_content_type_is_free(link: UploadLink) -> None:
    for content_type in ("text/csv", "application/gzip", ""):
        headers = {"Content-Type": content_type} if content_type else {}
        assert (await send(link, sample_bytes(SIZE), **headers)).status_code == 200


@pytest.mark.slow  # waits until the link expires
async def test_upload_link_expires(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    before = datetime.now(UTC)
    link = await storage.upload_link(key, size_bytes=SIZE, expires_in_seconds=3)
    assert before + timedelta(seconds=2) <= link.expires_at <= before + timedelta(seconds=4)
    assert (await send(link, sample_bytes(SIZE))).status_code == 200
    await storage.delete([key])

    async def is_rejected() -> bool:
        return (await send(link, sample_bytes(SIZE))).status_code == 403

    await until(is_rejected)
    assert datetime.now(UTC) >= link.expires_at
    await storage.delete([key])
    assert await is_rejected()
    assert await stored(s3, settings, key) is None


async def test_upload_link_is_for_the_public_endpoint_and_hides_secrets(
    settings: Settings, storage: Storage, key: str
) -> None:
    ours = settings.store.endpoint_url
    public = ours.replace("127.0.0.1", "localhost")
    outside = Storage(settings.model_copy(update={"s3_public_endpoint_url": public}))
    link = await outside.upload_link(key, size_bytes=SIZE, expires_in_seconds=60)
    await outside.close()
    assert link.url.startswith(f"{public}/{settings.s3_bucket}/{key}?")
    moved = UploadLink(link.url.replace(public, ours), link.method, link.headers, link.expires_at)
    assert (await send(moved, sample_bytes(SIZE))).status_code == 403
    assert (await send(link, sample_bytes(SIZE))).status_code == 200
    assert settings.store.secret_key not in link.url
    assert "Signature" not in repr(link)
