"""The object store: files and links to them, and the checks of `doctor` and probes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import structlog

from segmentql.adapters import bucket, stored_file
from segmentql.adapters.multipart_upload import Uploader
from segmentql.adapters.s3 import DEFAULT_TIMEOUTS, S3, StoreTimeouts, run_limited
from segmentql.adapters.stored_file import UploadLink
from segmentql.errors import StoreFailed
from segmentql.settings import Settings

log = structlog.get_logger(__name__)

CSV_TYPE: Final = "text/csv; charset=utf-8"
GZIP_TYPE: Final = "application/gzip"

_SERVER_ERROR: Final = 500


class Storage:
    """The bucket of the service. Connects at the first use. For use on one event loop."""

    def __init__(self, settings: Settings, timeouts: StoreTimeouts = DEFAULT_TIMEOUTS) -> None:
        self._store = settings.store
        self._bucket = self._store.bucket
        self._retention_days = settings.report_retention_days
        self._s3 = S3(self._store, timeouts)
        self._uploader = Uploader(self._s3, self._bucket)

    async def open(self) -> None:
        """Prepare the client, so that the first use does not wait for it.

        It does not connect to the store. If the credentials are not available yet, the first use
        tries again.
        """
        try:
            await self._s3.client()
        except StoreFailed as failed:
            log.warning("store_not_ready", reason=failed.reason)

    async def check_credentials(self) -> None:
        """Check that links can be signed now. Does not connect to the store.

        Raises:
            StoreUnavailable: there are no credentials.
        """
        await self._s3.check_credentials()

    async def close(self) -> None:
        """Close the connections after the aborts of failed uploads."""
        await self._uploader.wait_for_aborts()
        await self._s3.close()

    async def upload(self, key: str, chunks: AsyncIterator[bytes], *, content_type: str) -> int:
        """Store a stream of chunks of any size; return its size in bytes.

        At most two parts of 5 MiB are in memory. The file is visible only when it is complete. If
        the store, `chunks` or a cancellation ends the upload, no part of it remains. The exception
        is the last call: if the upload fails during it, the complete file may exist.

        Raises:
            StoreFailed: the upload failed. Errors of `chunks` are raised, too.
        """
        return await self._uploader.upload(key, chunks, content_type=content_type)

    async def download_url(
        self, key: str, *, seconds: int, file_name: str, content_type: str = CSV_TYPE
    ) -> str:
        """Return a link to a file. It needs no call to the store.

        Anyone with the link can download the file, so the link must not be stored or logged.

        Args:
            seconds: the lifetime of the link, 1 to 604800. If the credentials are temporary, the
                link ends at the latest with them.
            file_name: the name under which browsers save the file, in ASCII without quotes.
            content_type: the media type that the store sends with the file.

        Raises:
            StoreUnavailable: there are no credentials.
        """
        signer = await self._s3.signer()
        return await self._s3.call(
            signer.generate_presigned_url(
                "get_object",
                Params={
                    "Bucket": self._bucket,
                    "Key": key,
                    "ResponseContentDisposition": f'attachment; filename="{file_name}"',
                    "ResponseContentType": content_type,
                },
                ExpiresIn=seconds,
            )
        )

    async def upload_link(
        self, key: str, *, size_bytes: int, expires_in_seconds: int, content_type: str | None = None
    ) -> UploadLink:
        """Return a link with which a client uploads a file. It needs no call to the store.

        The store rejects a file of another size. Until the link expires, the client can upload the
        file again, which replaces it, even after `delete`. `copy` protects against that.

        Args:
            key: the key of the file, which is then in a folder of its own, `imports/uploads/`.
            size_bytes: the exact size of the file, 0 to 5 GiB.
            expires_in_seconds: the time within which the upload must start, 1 to 604800.
            content_type: the type that the client must send. If None, it can send any or none.
        """
        headers = {"Content-Length": str(size_bytes)}
        if content_type is not None:
            headers["Content-Type"] = content_type
        return await stored_file.upload_link(
            self._s3,
            {"Bucket": self._bucket, "Key": key},
            headers,
            expires_in_seconds=expires_in_seconds,
        )

    async def size(self, key: str) -> int:
        """Return the size of a file in bytes.

        Raises:
            ObjectMissing: there is no such file.
            StoreFailed: the size is unknown.
        """
        return await stored_file.file_size(self._s3, self._bucket, key)

    async def copy(self, source_key: str, target_key: str) -> int:
        """Copy a file of up to 5 GiB within the store; return the size of the copy in bytes.

        A complete file is visible under `target_key`, or none. An existing one is replaced.

        Raises:
            ObjectMissing: there is no such file.
            StoreFailed: the copy failed. It may exist nevertheless.
        """
        return await stored_file.copy_file(self._s3, self._bucket, source_key, target_key)

    def read(self, key: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open a file for reading: `async with storage.read(key) as chunks`.

        The chunks have `stored_file.CHUNK_BYTES` bytes, except the last one. At most three of them
        are in memory. The chunks together are the whole file, or the iteration raises.

        Raises:
            ObjectMissing: there is no such file.
            StoreUnavailable: the store failed, or the connection broke within the file. A retry
                must read the file from the start.
            StoreFailed: the file cannot be read.
        """
        return stored_file.open_file(self._s3, self._bucket, key)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete files. Missing files are ignored.

        Raises:
            StoreFailed: some files may remain.
        """
        # One call per file, because not every store supports DeleteObjects.
        await run_limited([partial(self._delete, key) for key in keys])

    async def abort_stale_uploads(self, *, older_than_seconds: float) -> int:
        """Abort the unfinished uploads of killed processes; return their number.

        The age of an upload is measured by the store's clock.

        Raises:
            StoreFailed: some uploads may remain.
        """
        return await self._uploader.abort_stale(older_than_seconds=older_than_seconds)

    async def delete_with_parts(self, key: str) -> None:
        """Delete a file and its unfinished uploads, which a dead process may have left.

        Raises:
            StoreFailed: some of it may remain.
        """
        await self._uploader.abort_all(key)
        await self.delete([key])

    async def ping(self, *, seconds: float = 1) -> bool:
        """Return whether the endpoint responds to HTTP within `seconds`. Never raises.

        This is for probes. The request is written without an HTTP library, which saves an import.
        `check` verifies the credentials and the bucket.
        """
        url = urlsplit(self._store.bucket_origin(self._store.endpoint_url))
        is_secure = url.scheme == "https"
        request = f"HEAD / HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n\r\n"
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_connection(
                    url.hostname, url.port or (443 if is_secure else 80), ssl=is_secure or None
                )
                try:
                    writer.write(request.encode())
                    protocol, status, *_ = (await reader.readline()).split()
                finally:
                    writer.close()
            return protocol.startswith(b"HTTP/") and int(status) < _SERVER_ERROR
        except (OSError, TimeoutError, ValueError):
            return False

    async def check(self) -> datetime:
        """Check that the store accepts the credentials and has the bucket; return its clock.

        Raises:
            StoreFailed: the check failed.
        """
        return await bucket.check(self._s3, self._bucket)

    async def set_up(self) -> None:
        """Create the bucket, and set its lifecycle and its CORS rule. Idempotent.

        The lifecycle deletes files a day after the scheduler should have deleted them.

        Raises:
            StoreFailed: the bucket does not exist and could not be created.
        """
        await bucket.set_up(self._s3, self._store, expire_days=self._retention_days + 1)

    async def _delete(self, key: str) -> None:
        client = await self._s3.client()
        await self._s3.call(client.delete_object(Bucket=self._bucket, Key=key))
