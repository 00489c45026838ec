"""Uploads of streams of unknown length to S3, in parts.

A file is visible only when it is complete. S3 keeps the parts of an unfinished upload, invisible,
until the upload is aborted.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from segmentql.adapters.s3 import NO_UPLOAD, S3, run_limited, server_clock
from segmentql.errors import StoreFailed

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import (
        CompletedPartTypeDef,
        CreateMultipartUploadOutputTypeDef,
    )

log = structlog.get_logger(__name__)

PART_BYTES: Final = 5 * 1024 * 1024
"""The smallest part size of S3, to save memory. With 10,000 parts a file can have 50 GB."""

UPLOADS_PER_PAGE: Final = 100
MAX_PAGES: Final = 100
"""The maximum number of pages of stale uploads that one run aborts."""

ABORT_WAIT_SECONDS: Final = 5
"""How long a failed upload waits until it is aborted. The abort then continues in background."""


@dataclass
class _Upload:
    """An unfinished multipart upload."""

    key: str
    id: str
    parts: "list[CompletedPartTypeDef]" = field(default_factory=list)
    size_bytes: int = 0


class _PartBuffer:
    """The unsent bytes, less than one part. They are kept as views, so each is in memory once."""

    def __init__(self) -> None:
        self._pieces: list[memoryview] = []
        self._bytes = 0

    def add(self, chunk: bytes) -> Iterator[bytes]:
        """Add a chunk; yield each full part, of exactly `PART_BYTES` as some stores require."""
        remaining = memoryview(chunk)
        while self._bytes + len(remaining) >= PART_BYTES:
            needed = PART_BYTES - self._bytes
            self._append(remaining[:needed])
            remaining = remaining[needed:]
            yield self.take_all()
        self._append(remaining)

    def take_all(self) -> bytes:
        """Remove and return all bytes."""
        joined = b"".join(self._pieces)
        self._pieces, self._bytes = [], 0
        return joined

    def _append(self, piece: memoryview) -> None:
        self._pieces.append(piece)
        self._bytes += len(piece)


class Uploader:
    """Uploads files to a bucket, and aborts unfinished uploads. For use on one event loop."""

    def __init__(self, s3: S3, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._aborts: set[asyncio.Task[None]] = set()

    async def wait_for_aborts(self) -> None:
        """Wait up to `ABORT_WAIT_SECONDS` for aborts in the background."""
        if self._aborts:
            await asyncio.wait(self._aborts, timeout=ABORT_WAIT_SECONDS)

    async def upload(self, key: str, chunks: AsyncIterator[bytes], *, content_type: str) -> int:
        """Upload a stream; return its size in bytes. See `Storage.upload`."""
        buffer = _PartBuffer()
        upload: _Upload | None = None
        try:
            async for chunk in chunks:
                for part in buffer.add(chunk):
                    upload = upload or await self._create(key, content_type)
                    await self._upload_part(upload, part)
                    del part  # frees its memory before the next part exists
            rest = buffer.take_all()
            if upload is None:
                return await self._put(key, rest, content_type)
            if rest:
                await self._upload_part(upload, rest)
            await self._complete(upload)
        except BaseException:
            if upload:
                await self._abort_shielded(self._abort(key, upload.id))
            raise
        return upload.size_bytes

    async def abort_stale(self, *, older_than_seconds: float) -> int:
        """Abort old unfinished uploads; return their number. See `Storage.abort_stale_uploads`."""
        client = await self._s3.client()
        aborted = 0
        for _ in range(MAX_PAGES):
            page = await self._s3.call(
                client.list_multipart_uploads(Bucket=self._bucket, MaxUploads=UPLOADS_PER_PAGE)
            )
            newest = server_clock(page["ResponseMetadata"]) - timedelta(seconds=older_than_seconds)
            stale = [
                partial(self._abort, upload["Key"], upload["UploadId"])
                for upload in page.get("Uploads", [])
                if upload["Initiated"] <= newest
            ]
            await run_limited(stale)
            aborted += len(stale)
            # Always the first page: not every store returns the start of the next one.
            if not stale or not page["IsTruncated"]:
                break
        return aborted

    async def abort_all(self, key: str) -> None:
        """Abort every unfinished upload of a file.

        Raises:
            StoreFailed: some uploads may remain.
        """
        client = await self._s3.client()
        page = await self._s3.call(client.list_multipart_uploads(Bucket=self._bucket, Prefix=key))
        for upload in page.get("Uploads", []):
            await self._abort(upload["Key"], upload["UploadId"])

    async def _put(self, key: str, body: bytes, content_type: str) -> int:
        client = await self._s3.client()
        await self._s3.call(
            client.put_object(Bucket=self._bucket, Key=key, Body=body, ContentType=content_type)
        )
        return len(body)

    async def _create(self, key: str, content_type: str) -> _Upload:
        client = await self._s3.client()
        creation = asyncio.create_task(
            self._s3.call(
                client.create_multipart_upload(
                    Bucket=self._bucket, Key=key, ContentType=content_type
                )
            )
        )
        try:
            created = await asyncio.shield(creation)
        except asyncio.CancelledError:
            # The abort needs the upload's id, which only the response contains.
            await self._abort_shielded(self._abort_created(key, creation))
            raise
        return _Upload(key, created["UploadId"])

    async def _upload_part(self, upload: _Upload, body: bytes) -> None:
        client = await self._s3.client()
        number = len(upload.parts) + 1
        response = await self._s3.call(
            client.upload_part(
                Bucket=self._bucket,
                Key=upload.key,
                UploadId=upload.id,
                PartNumber=number,
                Body=body,
            )
        )
        upload.parts.append({"PartNumber": number, "ETag": response["ETag"]})
        upload.size_bytes += len(body)

    async def _complete(self, upload: _Upload) -> None:
        client = await self._s3.client()
        await self._s3.call(
            client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=upload.key,
                UploadId=upload.id,
                MultipartUpload={"Parts": upload.parts},
            )
        )

    async def _abort(self, key: str, upload_id: str) -> None:
        client = await self._s3.client()
        try:
            await self._s3.call(
                client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)
            )
        except StoreFailed as failed:
            if failed.code != NO_UPLOAD:
                raise

    async def _abort_created(
        self, key: str, creation: "asyncio.Task[CreateMultipartUploadOutputTypeDef]"
    ) -> None:
        await self._abort(key, (await creation)["UploadId"])

    async def _abort_shielded(self, abort: Coroutine[Any, Any, None]) -> None:
        """Run an abort even if the caller is cancelled; wait up to `ABORT_WAIT_SECONDS` for it."""

        async def abort_and_log() -> None:
            try:
                await abort
            except StoreFailed as failed:
                # `abort_stale_uploads` or the bucket's lifecycle aborts it later.
                log.warning("upload_not_aborted", reason=failed.reason)

        task = asyncio.create_task(abort_and_log())
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)
        await asyncio.wait({task}, timeout=ABORT_WAIT_SECONDS)
