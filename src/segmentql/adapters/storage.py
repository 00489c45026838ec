"""The object store: files go in whole or not at all, and come out by links that expire."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import structlog

from segmentql.adapters import bucket
from segmentql.adapters.s3 import DEFAULT_TIMEOUTS, NO_UPLOAD, S3, StoreTimeouts, clock
from segmentql.errors import StoreFailed
from segmentql.settings import Settings

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import (
        CompletedPartTypeDef,
        CreateMultipartUploadOutputTypeDef,
    )

log = structlog.get_logger(__name__)

PART_BYTES: Final = 5 * 1024 * 1024
"""The least that S3 takes, for memory's sake; with 10,000 parts a file is of up to 50 GB."""

MAX_CONCURRENT_CALLS: Final = 8
"""Of those that take back or delete."""

PAGE_UPLOADS: Final = 100
MAX_PAGES: Final = 100
"""Of uploads that are looked through for stale ones, at one go."""

CLEAN_UP_SECONDS: Final = 5
"""How long an upload that failed is held up by being taken back."""

_SERVER_FAULT: Final = 500


@dataclass
class _Upload:
    key: str
    id: str
    parts: "list[CompletedPartTypeDef]" = field(default_factory=list)
    size_bytes: int = 0


class _PartBuffer:
    """What is not sent yet: less than a part, in the pieces it came in, and so in memory once."""

    def __init__(self) -> None:
        self._pieces: list[memoryview] = []
        self._bytes = 0

    def parts_with(self, chunk: bytes) -> Iterator[bytes]:
        """The parts that there are with `chunk`, of `PART_BYTES` each: some stores want it so."""
        left = memoryview(chunk)
        while self._bytes + len(left) >= PART_BYTES:
            needed = PART_BYTES - self._bytes
            self._keep(left[:needed])
            left = left[needed:]
            yield self.rest()
        self._keep(left)

    def rest(self) -> bytes:
        """All of it; nothing waits any more."""
        joined = b"".join(self._pieces)
        self._pieces, self._bytes = [], 0
        return joined

    def _keep(self, piece: memoryview) -> None:
        self._pieces.append(piece)
        self._bytes += len(piece)


class Storage:
    """The bucket as one process sees it. Used on one event loop; connects when first used."""

    def __init__(self, settings: Settings, limits: StoreTimeouts = DEFAULT_TIMEOUTS) -> None:
        self._store = settings.store
        self._bucket = self._store.bucket
        self._retention_days = settings.report_retention_days
        self._s3 = S3(self._store, limits)
        self._cleaning: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Make ready now what the first use would otherwise wait for; connects to nothing."""
        await self._s3.client()

    async def close(self) -> None:
        """Let go of the connections, once what is being taken back is."""
        if self._cleaning:
            await asyncio.wait(self._cleaning, timeout=CLEAN_UP_SECONDS)
        await self._s3.close()

    async def upload(self, key: str, chunks: AsyncIterator[bytes], *, content_type: str) -> int:
        """Store what `chunks` yields, in pieces of any size; returns how many bytes it was.

        Two parts of it are in memory at most. Nobody sees the file before it is whole. Where the
        store, `chunks` or a cancellation ends this, no part of it is left; but if the very last
        call was under way then, the file may be there, whole.

        Raises:
            StoreFailed: and whatever `chunks` raises.
        """
        waiting = _PartBuffer()
        upload: _Upload | None = None
        try:
            async for chunk in chunks:
                for part in waiting.parts_with(chunk):
                    upload = upload or await self._begin(key, content_type)
                    await self._send(upload, part)
                    del part  # before the next one is there
            rest = waiting.rest()
            if upload is None:
                return await self._put(key, rest, content_type)
            if rest:
                await self._send(upload, rest)
            await self._finish(upload)
        except BaseException:
            if upload:
                await self._clean_up(self._abort(key, upload.id))
            raise
        return upload.size_bytes

    async def download_url(self, key: str, *, seconds: int, file_name: str) -> str:
        """A link to a file, good for `seconds` (1 to 604800) from now on. Asks nobody.

        Whoever has it may download, so it goes into no row and no log. `file_name` is what a
        browser saves it as: ASCII without quotes.
        """
        signer = await self._s3.signer()
        return await signer.generate_presigned_url(
            "get_object",
            Params={
                "Bucket": self._bucket,
                "Key": key,
                "ResponseContentDisposition": f'attachment; filename="{file_name}"',
                "ResponseContentType": "text/csv; charset=utf-8",
            },
            ExpiresIn=seconds,
        )

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete files; one that is not there is no error.

        Raises:
            StoreFailed: some may be left.
        """
        # One by one: not every store takes the call that deletes many.
        await _run_limited([partial(self._delete, key) for key in keys])

    async def abort_stale_uploads(self, *, older_than_seconds: float) -> int:
        """Take back uploads that killed processes left; how many. The clock is the store's.

        Raises:
            StoreFailed: some may be left.
        """
        client = await self._s3.client()
        aborted = 0
        for _ in range(MAX_PAGES):
            page = await self._s3.call(
                client.list_multipart_uploads(Bucket=self._bucket, MaxUploads=PAGE_UPLOADS)
            )
            newest = clock(page["ResponseMetadata"]) - timedelta(seconds=older_than_seconds)
            stale = [
                partial(self._abort, upload["Key"], upload["UploadId"])
                for upload in page.get("Uploads", [])
                if upload["Initiated"] <= newest
            ]
            await _run_limited(stale)
            aborted += len(stale)
            # The first page again, without them: not every store says where the next one begins.
            if not stale or not page["IsTruncated"]:
                break
        return aborted

    async def abandon(self, key: str) -> None:
        """Take back whatever a process that died may have left of a file, whole or in parts.

        Raises:
            StoreFailed: some may be left.
        """
        client = await self._s3.client()
        page = await self._s3.call(client.list_multipart_uploads(Bucket=self._bucket, Prefix=key))
        for upload in page.get("Uploads", []):
            await self._abort(upload["Key"], upload["UploadId"])
        await self.delete([key])

    async def ping(self, *, seconds: float = 1) -> bool:
        """Whether anything answers HTTP at the endpoint within `seconds`; never raises.

        For probes: asked by hand, it costs no import. Whether the store takes our keys and has our
        bucket, `check` says.
        """
        url = urlsplit(self._store.endpoint_url)
        is_secure = url.scheme == "https"
        question = f"HEAD / HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n\r\n"
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_connection(
                    url.hostname, url.port or (443 if is_secure else 80), ssl=is_secure or None
                )
                try:
                    writer.write(question.encode())
                    protocol, status, *_ = (await reader.readline()).split()
                finally:
                    writer.close()
            return protocol.startswith(b"HTTP/") and int(status) < _SERVER_FAULT
        except (OSError, TimeoutError, ValueError):
            return False

    async def check(self) -> datetime:
        """Make sure that the store takes our keys and has our bucket; returns its clock.

        Raises:
            StoreFailed: it does not.
        """
        return await bucket.check(self._s3, self._bucket)

    async def set_up(self) -> None:
        """Make the bucket and its lifecycle; idempotent.

        Files live a day longer there than the scheduler lets them: it is a second line.

        Raises:
            StoreFailed: there is no bucket and none can be made.
        """
        await bucket.set_up(self._s3, self._store, expire_days=self._retention_days + 1)

    async def _delete(self, key: str) -> None:
        client = await self._s3.client()
        await self._s3.call(client.delete_object(Bucket=self._bucket, Key=key))

    async def _put(self, key: str, body: bytes, content_type: str) -> int:
        client = await self._s3.client()
        await self._s3.call(
            client.put_object(Bucket=self._bucket, Key=key, Body=body, ContentType=content_type)
        )
        return len(body)

    async def _begin(self, key: str, content_type: str) -> _Upload:
        client = await self._s3.client()
        beginning = asyncio.create_task(
            self._s3.call(
                client.create_multipart_upload(
                    Bucket=self._bucket, Key=key, ContentType=content_type
                )
            )
        )
        try:
            begun = await asyncio.shield(beginning)
        except asyncio.CancelledError:
            # Only its answer tells how the upload can be taken back.
            await self._clean_up(self._abort_begun(key, beginning))
            raise
        return _Upload(key, begun["UploadId"])

    async def _send(self, upload: _Upload, body: bytes) -> None:
        client = await self._s3.client()
        number = len(upload.parts) + 1
        sent = await self._s3.call(
            client.upload_part(
                Bucket=self._bucket,
                Key=upload.key,
                UploadId=upload.id,
                PartNumber=number,
                Body=body,
            )
        )
        upload.parts.append({"PartNumber": number, "ETag": sent["ETag"]})
        upload.size_bytes += len(body)

    async def _finish(self, upload: _Upload) -> None:
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

    async def _abort_begun(
        self, key: str, beginning: "asyncio.Task[CreateMultipartUploadOutputTypeDef]"
    ) -> None:
        await self._abort(key, (await beginning)["UploadId"])

    async def _clean_up(self, work: Coroutine[Any, Any, None]) -> None:
        """Have `work` done though this be cancelled, and wait for it a while."""

        async def quietly() -> None:
            try:
                await work
            except StoreFailed as failed:
                # `abort_stale_uploads` finds it, or the lifecycle.
                log.warning("upload_not_taken_back", reason=failed.reason)

        task = asyncio.create_task(quietly())
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)
        await asyncio.wait({task}, timeout=CLEAN_UP_SECONDS)


async def _run_limited(calls: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Make every call, a few at a time; the first fault of a few keeps from the next ones."""
    for first in range(0, len(calls), MAX_CONCURRENT_CALLS):
        few = [call() for call in calls[first : first + MAX_CONCURRENT_CALLS]]
        for outcome in await asyncio.gather(*few, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
