"""Files for the object store, and looks into it."""

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
    """The same bytes each time, of which no stretch is like another."""
    return random.Random(size_bytes).randbytes(size_bytes)  # noqa: S311 - no secret


async def chunks(data: bytes, piece_bytes: int = 65_539) -> AsyncIterator[bytes]:
    """A source: by default of pieces that parts are no multiple of."""
    for start in range(0, len(data), piece_bytes):
        yield data[start : start + piece_bytes]


async def upload_file(storage: Storage, key: str, data: bytes = b"a,b\n1,2\n") -> str:
    """Store a file; a link to it, good for a day."""
    await storage.upload(key, chunks(data), content_type="text/csv")
    return await storage.download_url(key, seconds=DAY, file_name=NAME)


async def http_get(link: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(link)


async def object_keys(s3: "S3Client", settings: Settings) -> set[str]:
    found = await s3.list_objects_v2(Bucket=settings.s3_bucket)
    return {item["Key"] for item in found.get("Contents", [])}


async def pending_uploads(s3: "S3Client", settings: Settings) -> list[str]:
    """The keys of uploads under way."""
    found = await s3.list_multipart_uploads(Bucket=settings.s3_bucket)
    return [upload["Key"] for upload in found.get("Uploads", [])]
