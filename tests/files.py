"""Files for the object store, and functions that inspect the bucket."""

import random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx

from segmentql.adapters.storage import Storage
from segmentql.settings import Settings

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

NAME = "segments-7-2023-09.csv"
DAY = 86_400


def sample_bytes(size_bytes: int) -> bytes:
    """Return deterministic random bytes, without repetitions."""
    return random.Random(size_bytes).randbytes(size_bytes)  # noqa: S311 - no secret


async def chunks(data: bytes, piece_bytes: int = 65_539) -> AsyncIterator[bytes]:
    """Yield chunks, by default of a size that the part size is no multiple of."""
    for start in range(0, len(data), piece_bytes):
        yield data[start : start + piece_bytes]


async def upload_file(storage: Storage, key: str, data: bytes = b"a,b\n1,2\n") -> str:
    """Upload a file, and return a link to it that is valid for a day."""
    await storage.upload(key, chunks(data), content_type="text/csv")
    return await storage.download_url(key, seconds=DAY, file_name=NAME)


async def http_get(link: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(link)


async def object_keys(s3: "S3Client", settings: Settings) -> set[str]:
    response = await s3.list_objects_v2(Bucket=settings.s3_bucket)
    return {item["Key"] for item in response.get("Contents", [])}


async def pending_uploads(s3: "S3Client", settings: Settings) -> list[str]:
    """Return the keys of unfinished multipart uploads."""
    response = await s3.list_multipart_uploads(Bucket=settings.s3_bucket)
    return [upload["Key"] for upload in response.get("Uploads", [])]
