"""Files that clients upload through a link: the link, the copy of a file, and its content.

A client can replace its file until the link expires, even while the file is read. The service
therefore copies the file to a key without a link, and checks and reads only the copy.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from segmentql.adapters.s3 import CUT_SHORT, S3
from segmentql.errors import ObjectMissing, StoreFailed, StoreUnavailable

CHUNK_BYTES: Final = 256 * 1024
"""The size of the chunks of a file that is read. Only the last one may be smaller."""

_NOT_FOUND: Final = "404"
"""The code of a missing file in a response without a body, which HEAD requests get."""


@dataclass(frozen=True)
class UploadLink:
    """A link with which a client uploads one file. It must not be stored or logged."""

    url: str = field(repr=False)
    method: str
    headers: Mapping[str, str]
    """The headers of the request. They are signed, so the store rejects other values."""
    expires_at: datetime
    """The store rejects later requests. It measures the time at their start."""


async def upload_link(
    s3: S3, target: Mapping[str, str], headers: Mapping[str, str], *, expires_in_seconds: int
) -> UploadLink:
    """Return a signed link. See `Storage.upload_link`.

    Args:
        s3: the clients of the store.
        target: `Bucket` and `Key`.
        headers: `Content-Length`, and `Content-Type` if it is signed.
        expires_in_seconds: the lifetime of the link, 1 to 604800.
    """
    signer = await s3.signer()
    params: dict[str, Any] = {**target, "ContentLength": int(headers["Content-Length"])}
    if "Content-Type" in headers:
        params["ContentType"] = headers["Content-Type"]
    url = await s3.call(
        signer.generate_presigned_url("put_object", Params=params, ExpiresIn=expires_in_seconds)
    )
    expires_at = _signed_at(url) + timedelta(seconds=expires_in_seconds)
    key_expires_at = s3.credentials_expire_at()
    return UploadLink(
        url=url,
        method="PUT",
        headers=headers,
        expires_at=min(expires_at, key_expires_at) if key_expires_at else expires_at,
    )


def _signed_at(url: str) -> datetime:
    """Return the time of a signature, from which the store counts the lifetime of a link."""
    (text,) = parse_qs(urlsplit(url).query)["X-Amz-Date"]
    return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


async def copy_file(s3: S3, bucket: str, source_key: str, target_key: str) -> int:
    """Copy a file within the store; return the size of the copy. See `Storage.copy`."""
    client = await s3.client()
    await s3.call(
        client.copy_object(
            Bucket=bucket,
            Key=target_key,
            CopySource={"Bucket": bucket, "Key": source_key},
            # The headers that the client stored with its file are not copied.
            MetadataDirective="REPLACE",
            ContentType="application/octet-stream",
        )
    )
    return await file_size(s3, bucket, target_key)


async def file_size(s3: S3, bucket: str, key: str) -> int:
    """Return the size of a file in bytes. See `Storage.size`."""
    client = await s3.client()
    try:
        head = await s3.call(client.head_object(Bucket=bucket, Key=key))
    except StoreFailed as failed:
        if failed.code != _NOT_FOUND:
            raise
        raise ObjectMissing("the object store has no such file", failed.code) from failed
    return head["ContentLength"]


@asynccontextmanager
async def open_file(s3: S3, bucket: str, key: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """Open a file; yield its chunks. See `Storage.read`."""
    client = await s3.client()
    response = await s3.call(client.get_object(Bucket=bucket, Key=key))
    async with response["Body"]:
        if "ContentLength" not in response:  # a proxy removed it, so an early end is invisible
            raise StoreUnavailable("the object store does not state the size of a file")
        yield _chunks(s3, response["Body"].read, response["ContentLength"])


async def _chunks(
    s3: S3, read: Callable[[int], Awaitable[bytes]], size_bytes: int
) -> AsyncIterator[bytes]:
    """Yield the chunks of a body of which `read` returns the next bytes.

    Raises:
        StoreUnavailable: the body ended early, or no more bytes arrive in time.
    """
    received = 0
    while received < size_bytes:
        chunk = bytearray()
        while len(chunk) < min(CHUNK_BYTES, size_bytes - received):
            piece = await s3.call(read(CHUNK_BYTES - len(chunk)))
            if not piece:  # the HTTP library raises first; without this the loop would not end
                raise StoreUnavailable(CUT_SHORT)
            chunk += piece
        received += len(chunk)
        yield bytes(chunk)
