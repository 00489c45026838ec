"""What is left and what is said where the store fails, or whoever feeds it."""

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


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_the_settings_get_wrong_is_said_so_that_a_person_understands(
    settings: Settings, s3: "S3Client", key: str, wrong: str
) -> None:
    changes, error, reason = WRONG[wrong]
    astray = Storage(settings.model_copy(update=changes), QUICK)
    for call in (
        astray.upload(key, chunks(SMALL), content_type="text/csv"),
        astray.upload(key, chunks(LARGE), content_type="text/csv"),
        astray.delete([key]),
        astray.abort_stale_uploads(older_than_seconds=0),
        astray.check(),
    ):
        with pytest.raises(StoreFailed) as raised:
            await call
        assert (type(raised.value), raised.value.reason) == (error, reason)
    await astray.close()


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        ("200 OK", StoreUnavailable, "the object store failed internally (HTTP 500)"),
        ("502 Bad", StoreUnavailable, "the object store failed internally (HTTP 502)"),
        ("404 No", StoreRejected, "the response is not from an object store (HTTP 404)"),
    ],
)
async def test_what_answers_there_may_be_no_store(
    settings: Settings, status: str, error: type[StoreFailed], reason: str
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 7\r\n\r\nwelcome".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        astray = Storage(settings.model_copy(update={"s3_endpoint_url": url}), QUICK)
        with pytest.raises(StoreFailed) as raised:
            await astray.check()
        await astray.close()
    assert (type(raised.value), raised.value.reason) == (error, reason)


async def test_a_store_that_was_killed_is_found_again_with_its_files(
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
async def test_a_store_that_hangs_is_not_waited_for_forever(
    servers: LocalServers, settings: Settings, s3: "S3Client", key: str, data: bytes
) -> None:
    impatient = Storage(settings, QUICK)
    await impatient.check()
    with suspended(servers.store):
        with pytest.raises(StoreUnavailable, match="does not respond in time"):
            await impatient.upload(key, chunks(data), content_type="text/csv")
        assert not await impatient.ping(seconds=0.1)
    await impatient.close()


async def test_a_store_that_stops_reading_a_part_is_not_waited_for_forever(
    servers: LocalServers, settings: Settings, s3: "S3Client", key: str
) -> None:
    impatient = Storage(settings, QUICK)

    async def source() -> AsyncGenerator[bytes]:
        yield LARGE[:PART_BYTES]
        with suspended(servers.store):
            yield LARGE[PART_BYTES:]

    unfinished = source()
    with pytest.raises(StoreUnavailable, match="does not respond in time"):
        await impatient.upload(key, unfinished, content_type="text/csv")
    await unfinished.aclose()
    await impatient.abort_stale_uploads(older_than_seconds=0)
    assert key not in await object_keys(s3, settings)
    await impatient.close()


class SourceFailedError(Exception):
    """What a source of ours raises."""


@pytest.mark.parametrize("after_bytes", [0, 1, PART_BYTES, 2 * PART_BYTES])
async def test_a_source_that_fails_leaves_nothing(
    storage: Storage, s3: "S3Client", settings: Settings, key: str, after_bytes: int
) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield LARGE[:after_bytes]
        raise SourceFailedError

    with pytest.raises(SourceFailedError):
        await storage.upload(key, source(), content_type="text/csv")
    assert key not in await object_keys(s3, settings)
    assert await pending_uploads(s3, settings) == []


async def test_a_part_that_is_refused_half_way_leaves_nothing(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield LARGE[:PART_BYTES]
        found = await s3.list_multipart_uploads(Bucket=settings.s3_bucket)
        for upload in found["Uploads"]:
            await s3.abort_multipart_upload(
                Bucket=settings.s3_bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
        yield LARGE[PART_BYTES:]

    with pytest.raises(StoreUnavailable, match="NoSuchUpload"):
        await storage.upload(key, source(), content_type="text/csv")
    assert key not in await object_keys(s3, settings)
    assert await pending_uploads(s3, settings) == []


async def test_a_cancelled_upload_leaves_nothing(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    under_way = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield LARGE
        under_way.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(storage.upload(key, source(), content_type="text/csv"))
    await under_way.wait()
    assert await pending_uploads(s3, settings) == [key]
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert key not in await object_keys(s3, settings)
    assert await pending_uploads(s3, settings) == []


async def test_an_upload_cancelled_at_whatever_moment_leaves_nothing_or_all(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    """Also while it sends a part, and while it is finished."""
    for milliseconds in range(1, 200, 8):
        with suppress(TimeoutError):
            async with asyncio.timeout(milliseconds / 1000):
                await storage.upload(key, chunks(LARGE), content_type="text/csv")
        assert await pending_uploads(s3, settings) == []
        if key in await object_keys(s3, settings):
            link = await storage.download_url(key, seconds=60, file_name="x.csv")
            assert (await http_get(link)).content == LARGE
            await storage.delete([key])


async def test_an_upload_cancelled_while_it_begins_leaves_nothing(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    """The store has made it by then, and its answer says how to take it back."""

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


async def test_a_second_cancellation_does_not_keep_it_from_being_taken_back(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    under_way = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield LARGE
        under_way.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(storage.upload(key, source(), content_type="text/csv"))
    await under_way.wait()
    for _ in range(3):
        upload.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await upload

    async def taken_back() -> bool:
        return await pending_uploads(s3, settings) == []

    await until(taken_back)


async def test_what_a_killed_process_left_is_taken_back_once_it_is_old(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    for number in range(3):
        begun = await s3.create_multipart_upload(Bucket=settings.s3_bucket, Key=f"{key}/{number}")
        await s3.upload_part(
            Bucket=settings.s3_bucket,
            Key=f"{key}/{number}",
            UploadId=begun["UploadId"],
            PartNumber=1,
            Body=LARGE[:PART_BYTES],
        )
    assert await storage.abort_stale_uploads(older_than_seconds=3600) == 0
    assert len(await pending_uploads(s3, settings)) == 3

    taken_back = 0

    async def all_old() -> bool:
        nonlocal taken_back
        taken_back += await storage.abort_stale_uploads(older_than_seconds=1)
        return await pending_uploads(s3, settings) == []

    await until(all_old)
    assert taken_back == 3
    assert await storage.abort_stale_uploads(older_than_seconds=0) == 0


async def test_more_old_uploads_than_a_page_holds_are_taken_back(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    uploads = 2 * UPLOADS_PER_PAGE + 1
    for number in range(uploads):
        await s3.create_multipart_upload(Bucket=settings.s3_bucket, Key=f"{key}/{number}")
    # Those of this very second too.
    assert await storage.abort_stale_uploads(older_than_seconds=-60) == uploads
    assert await pending_uploads(s3, settings) == []


async def test_whether_it_answers_is_said_without_raising(settings: Settings) -> None:
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
                astray = Storage(settings.model_copy(update={"s3_endpoint_url": url}))
                assert not await astray.ping()
