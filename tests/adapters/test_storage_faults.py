"""Failures of the store raise clear errors and leave no data."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import pytest

from segmentql.adapters.multipart_upload import PART_BYTES
from segmentql.adapters.s3 import StoreTimeouts
from segmentql.adapters.storage import Storage
from segmentql.errors import BucketMissing, StoreFailed, StoreRejected, StoreUnavailable
from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.conftest import suspended
from tests.files import chunks, http_get, object_keys, sample_bytes, upload_file

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client


pytestmark = pytest.mark.slow  # the tests wait for timeouts and stop the store

SMALL = b"a,b\n1,2\n"
LARGE = sample_bytes(2 * PART_BYTES + 1)
QUICK = StoreTimeouts(connect_seconds=0.5, read_seconds=0.5, attempts=1, call_seconds=2)


WRONG: dict[str, tuple[dict[str, str], type[StoreFailed], str]] = {
    "access key": (
        {"s3_access_key": "nobody"},
        StoreRejected,
        "the object store does not know the access key",
    ),
    "secret key": (
        {"s3_secret_key": "wrong"},
        StoreRejected,
        "the object store rejects the secret key",
    ),
    "bucket": (
        {"s3_bucket": "nowhere"},
        BucketMissing,
        "the object store has no such bucket: run `segmentql bucket`",
    ),
    "port": (
        {"s3_endpoint_url": "http://127.0.0.1:1"},
        StoreUnavailable,
        "the object store cannot be reached",
    ),
    "host": (
        {"s3_endpoint_url": "http://nowhere.invalid"},
        StoreUnavailable,
        "the object store cannot be reached",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
async def test_wrong_settings_raise_a_readable_error(
    settings: Settings, s3: "S3Client", key: str, mistake: str
) -> None:
    changes, error, reason = WRONG[mistake]
    misconfigured = Storage(settings.model_copy(update=changes), QUICK)
    for call in (
        misconfigured.upload(key, chunks(SMALL), content_type="text/csv"),
        misconfigured.upload(key, chunks(LARGE), content_type="text/csv"),
        misconfigured.delete([key]),
        misconfigured.abort_stale_uploads(older_than_seconds=0),
        misconfigured.check(),
    ):
        with pytest.raises(StoreFailed) as raised:
            await call
        assert (type(raised.value), raised.value.reason) == (error, reason)
    await misconfigured.close()


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        ("200 OK", StoreUnavailable, "the object store failed internally (HTTP 500)"),
        ("502 Bad", StoreUnavailable, "the object store failed internally (HTTP 502)"),
        ("404 No", StoreRejected, "the response is not from an object store (HTTP 404)"),
    ],
)
async def test_server_that_is_no_store_is_reported(
    settings: Settings, status: str, error: type[StoreFailed], reason: str
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 7\r\n\r\nwelcome".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        misconfigured = Storage(settings.model_copy(update={"s3_endpoint_url": url}), QUICK)
        with pytest.raises(StoreFailed) as raised:
            await misconfigured.check()
        await misconfigured.close()
    assert (type(raised.value), raised.value.reason) == (error, reason)


async def test_store_keeps_its_files_after_being_killed(
    servers: LocalServers, settings: Settings, storage: Storage, key: str
) -> None:
    link = await upload_file(storage, key, LARGE)
    await servers.store.kill()
    assert not await storage.ping()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await storage.upload(f"{key}/2", chunks(SMALL), content_type="text/csv")
    await servers.store.start()
    assert await storage.ping()
    assert (await http_get(link)).content == LARGE
    assert (await http_get(await upload_file(storage, f"{key}/2", SMALL))).content == SMALL


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_hanging_store_times_out(
    servers: LocalServers, settings: Settings, s3: "S3Client", key: str, data: bytes
) -> None:
    short_timeout = Storage(settings, QUICK)
    await short_timeout.check()
    with suspended(servers.store):
        with pytest.raises(StoreUnavailable, match="does not respond in time"):
            await short_timeout.upload(key, chunks(data), content_type="text/csv")
        assert not await short_timeout.ping(seconds=0.1)
    await short_timeout.close()


async def test_store_that_stops_reading_a_part_times_out(
    servers: LocalServers, settings: Settings, s3: "S3Client", key: str
) -> None:
    short_timeout = Storage(settings, QUICK)

    async def source() -> AsyncGenerator[bytes]:
        yield LARGE[:PART_BYTES]
        with suspended(servers.store):
            yield LARGE[PART_BYTES:]

    unfinished = source()
    with pytest.raises(StoreUnavailable, match="does not respond in time"):
        await short_timeout.upload(key, unfinished, content_type="text/csv")
    await unfinished.aclose()
    await short_timeout.abort_stale_uploads(older_than_seconds=0)
    assert key not in await object_keys(s3, settings)
    await short_timeout.close()


async def test_ping_returns_whether_the_store_responds(settings: Settings) -> None:
    async def none(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def broken(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Busy\r\n\r\n")
        writer.close()

    async def garbage(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\r\n")
        writer.close()

    assert await Storage(settings).ping()
    for answer in (none, broken, garbage):
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            for scheme in ("http", "https"):
                url = f"{scheme}://127.0.0.1:{port}"
                misconfigured = Storage(settings.model_copy(update={"s3_endpoint_url": url}))
                assert not await misconfigured.ping()
