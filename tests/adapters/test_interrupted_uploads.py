"""Uploads that fail, are cancelled or lose their process leave no data in the store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from segmentql.adapters.multipart_upload import PART_BYTES, UPLOADS_PER_PAGE
from segmentql.adapters.storage import Storage
from segmentql.errors import StoreUnavailable
from segmentql.settings import Settings
from tests.conftest import until
from tests.files import chunks, http_get, object_keys, pending_uploads, sample_bytes

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client


pytestmark = pytest.mark.slow  # some tests send large files, or hundreds of requests
LARGE = sample_bytes(2 * PART_BYTES + 1)


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
