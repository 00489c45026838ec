"""Failures of the store or of an upload's source raise clear errors and leave no data."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from segmentql.adapters.multipart_upload import PART_BYTES, UPLOADS_PER_PAGE
from segmentql.adapters.s3 import StoreTimeouts
from segmentql.adapters.storage import Storage
from segmentql.errors import BucketMissing, StoreFailed, StoreRejected, StoreUnavailable
from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.conftest import suspended, until
from tests.files import chunks, http_get, object_keys, pending_uploads, sample_bytes, upload_file

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


class SourceFailedError(Exception):
    """The error that a source raises."""


@pytest.mark.parametrize("after_bytes", [0, 1, PART_BYTES, 2 * PART_BYTES])
async def test_failed_source_leaves_no_upload(
    storage: Storage, s3: "S3Client", settings: Settings, key: str, after_bytes: int
) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield LARGE[:after_bytes]
        raise SourceFailedError

    with pytest.raises(SourceFailedError):
        await storage.upload(key, source(), content_type="text/csv")
    assert key not in await object_keys(s3, settings)
    assert await pending_uploads(s3, settings) == []


async def test_rejected_part_leaves_no_upload(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield LARGE[:PART_BYTES]
        uploads_listed = await s3.list_multipart_uploads(Bucket=settings.s3_bucket)
        for upload in uploads_listed["Uploads"]:
            await s3.abort_multipart_upload(
                Bucket=settings.s3_bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
        yield LARGE[PART_BYTES:]

    with pytest.raises(StoreUnavailable, match="NoSuchUpload"):
        await storage.upload(key, source(), content_type="text/csv")
    assert key not in await object_keys(s3, settings)
    assert await pending_uploads(s3, settings) == []


async def test_cancelled_upload_leaves_no_data(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    started_event = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield LARGE
        started_event.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(storage.upload(key, source(), content_type="text/csv"))
    await started_event.wait()
    assert await pending_uploads(s3, settings) == [key]
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert key not in await object_keys(s3, settings)
    assert await pending_uploads(s3, settings) == []


async def test_upload_cancelled_at_any_moment_leaves_all_or_nothing(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    """The moments include the sending of a part and the completion."""
    for milliseconds in range(1, 200, 8):
        with suppress(TimeoutError):
            async with asyncio.timeout(milliseconds / 1000):
                await storage.upload(key, chunks(LARGE), content_type="text/csv")
        assert await pending_uploads(s3, settings) == []
        if key in await object_keys(s3, settings):
            link = await storage.download_url(key, seconds=60, file_name="x.csv")
            assert (await http_get(link)).content == LARGE
            await storage.delete([key])


async def test_upload_cancelled_at_its_start_leaves_no_data(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    """The store has created the upload by then, and its response has the id for the abort."""

    async def source() -> AsyncIterator[bytes]:
        yield LARGE[:PART_BYTES]
        await asyncio.Event().wait()

    await storage.check()
    for turns in range(1, 200, 4):
        upload = asyncio.create_task(storage.upload(key, source(), content_type="text/csv"))
        for _ in range(turns):
            await asyncio.sleep(0)
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        assert await pending_uploads(s3, settings) == []


async def test_second_cancellation_does_not_stop_the_abort(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    started_event = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield LARGE
        started_event.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(storage.upload(key, source(), content_type="text/csv"))
    await started_event.wait()
    for _ in range(3):
        upload.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await upload

    async def was_aborted() -> bool:
        return await pending_uploads(s3, settings) == []

    await until(was_aborted)


async def test_old_uploads_of_a_killed_process_are_aborted(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    for number in range(3):
        upload_begun = await s3.create_multipart_upload(
            Bucket=settings.s3_bucket, Key=f"{key}/{number}"
        )
        await s3.upload_part(
            Bucket=settings.s3_bucket,
            Key=f"{key}/{number}",
            UploadId=upload_begun["UploadId"],
            PartNumber=1,
            Body=LARGE[:PART_BYTES],
        )
    assert await storage.abort_stale_uploads(older_than_seconds=3600) == 0
    assert len(await pending_uploads(s3, settings)) == 3

    was_aborted = 0

    async def are_old() -> bool:
        nonlocal was_aborted
        was_aborted += await storage.abort_stale_uploads(older_than_seconds=1)
        return await pending_uploads(s3, settings) == []

    await until(are_old)
    assert was_aborted == 3
    assert await storage.abort_stale_uploads(older_than_seconds=0) == 0


async def test_more_old_uploads_than_one_page_are_aborted(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    uploads = 2 * UPLOADS_PER_PAGE + 1
    for number in range(uploads):
        await s3.create_multipart_upload(Bucket=settings.s3_bucket, Key=f"{key}/{number}")
    # Uploads of this second are included.
    assert await storage.abort_stale_uploads(older_than_seconds=-60) == uploads
    assert await pending_uploads(s3, settings) == []


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
