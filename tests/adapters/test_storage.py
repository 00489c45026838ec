"""The object store has whole files or none, and its links expire; tests use a real store."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest
from botocore.awsrequest import AWSPreparedRequest

from segmentql.adapters.multipart_upload import PART_BYTES
from segmentql.adapters.s3 import S3
from segmentql.adapters.storage import Storage
from segmentql.settings import Settings
from tests.conftest import until
from tests.files import DAY, NAME, chunks, http_get, object_keys, sample_bytes, upload_file

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client


@pytest.mark.parametrize(
    "size_bytes",
    [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 20 * 1024 * 1024, 3 * PART_BYTES],
)
async def test_file_is_downloaded_unchanged(storage: Storage, key: str, size_bytes: int) -> None:
    data = sample_bytes(size_bytes)
    assert await storage.upload(key, chunks(data), content_type="text/csv") == size_bytes
    link = await storage.download_url(key, seconds=DAY, file_name=NAME)
    response = await http_get(link)
    assert response.status_code == 200
    assert response.content == data
    assert response.headers["content-disposition"] == f'attachment; filename="{NAME}"'
    assert response.headers["content-type"] == "text/csv; charset=utf-8"


@pytest.mark.parametrize("piece_bytes", [PART_BYTES - 1, 2 * PART_BYTES + 1, 100 * PART_BYTES])
async def test_chunks_may_be_larger_than_parts(
    storage: Storage, key: str, piece_bytes: int
) -> None:
    data = sample_bytes(20 * 1024 * 1024)
    await storage.upload(key, chunks(data, piece_bytes), content_type="text/csv")
    link = await storage.download_url(key, seconds=DAY, file_name=NAME)
    assert (await http_get(link)).content == data


async def test_file_replaces_the_one_of_the_same_key(storage: Storage, key: str) -> None:
    link = await upload_file(storage, key, b"first\n")
    await upload_file(storage, key, sample_bytes(PART_BYTES + 1))
    assert (await http_get(link)).content == sample_bytes(PART_BYTES + 1)
    await upload_file(storage, key, b"third\n")
    assert (await http_get(link)).content == b"third\n"


async def test_file_has_its_content_type_and_parts_are_binary(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    """A store compresses parts without a content type, at a tenth of the cost of a report."""
    sent: list[str | bytes] = []

    def record(request: AWSPreparedRequest, **_event: object) -> None:
        sent.append(request.headers["Content-Type"])

    ours, bucket = S3(settings.store), settings.s3_bucket
    client = await ours.client()
    client.meta.events.register("before-send.s3.UploadPart", record)
    upload_begun = await client.create_multipart_upload(Bucket=bucket, Key=key)
    upload = upload_begun["UploadId"]
    await client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"a,b\n")
    await client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
    await ours.close()
    assert sent == [b"binary/octet-stream"]

    await storage.upload(key, chunks(sample_bytes(PART_BYTES + 1)), content_type="text/csv")
    assert (await s3.head_object(Bucket=settings.s3_bucket, Key=key))["ContentType"] == "text/csv"


@pytest.mark.parametrize("piece_bytes", [1024 * 1024, 2 * PART_BYTES + 1])
async def test_file_is_invisible_until_it_is_complete(
    storage: Storage, s3: "S3Client", settings: Settings, key: str, piece_bytes: int
) -> None:
    """The store itself is queried, each time before it gets more data."""
    behind: list[int] = []

    async def source() -> AsyncIterator[bytes]:
        bytes_sent = 0
        async for piece in chunks(sample_bytes(40 * 1024 * 1024), piece_bytes):
            yield piece
            bytes_sent += len(piece)
            behind.append(bytes_sent - await stored_bytes())
            assert key not in await object_keys(s3, settings)

    async def stored_bytes() -> int:
        uploads_listed = await s3.list_multipart_uploads(Bucket=settings.s3_bucket)
        total = 0
        for upload in uploads_listed.get("Uploads", []):
            parts = await s3.list_parts(
                Bucket=settings.s3_bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
            total += sum(part["Size"] for part in parts.get("Parts", []))
        return total

    assert await storage.upload(key, source(), content_type="text/csv") == 40 * 1024 * 1024
    assert max(behind) < PART_BYTES
    assert key in await object_keys(s3, settings)


async def test_concurrent_uploads_succeed(storage: Storage, key: str) -> None:
    async def one(number: int) -> None:
        data = sample_bytes(PART_BYTES + number if number % 10 == 0 else number)
        response = await http_get(await upload_file(storage, f"{key}/{number}", data))
        assert response.content == data

    await asyncio.gather(*(one(number) for number in range(30)))


async def test_unsigned_download_is_rejected(storage: Storage, key: str) -> None:
    link = await upload_file(storage, key)
    assert (await http_get(link)).status_code == 200
    assert (await http_get(link.partition("?")[0])).status_code == 403


VALUES = re.compile(
    r"tests/\d+.csv|segments-7-2023-09|charset|(?<=Credential=)[^%]+|(?<=Date=)\d+|(?<=T)\d+(?=Z)"
    r"|(?<=Expires=)\d+|(?<=Signature=)\w+"
)
"""Every part of a link except S3's parameter names, without which it is not a link."""


async def test_link_with_one_changed_character_is_rejected(storage: Storage, key: str) -> None:
    link = await upload_file(storage, key)
    places = [
        place
        for value in VALUES.finditer(link)
        for place in range(*value.span())
        if link[place].isalnum()
    ]
    assert len(places) > 120
    async with httpx.AsyncClient() as client:
        for place in places:
            changed = link[:place] + _another(link[place]) + link[place + 1 :]
            assert (await client.get(changed)).status_code == 403, changed


def _another(character: str) -> str:
    """Return another letter for a letter, and another digit for a digit."""
    return {"a": "b", "0": "1"}.get(character) or ("0" if character.isdigit() else "a")


@pytest.mark.slow
async def test_link_expires(storage: Storage, key: str) -> None:
    await upload_file(storage, key)
    link = await storage.download_url(key, seconds=5, file_name=NAME)
    assert (await http_get(link)).status_code == 200

    async def has_expired() -> bool:
        return (await http_get(link)).status_code == 403

    await until(has_expired)


async def test_link_is_signed_for_the_public_endpoint_only(
    settings: Settings, storage: Storage, key: str
) -> None:
    await upload_file(storage, key)
    ours = settings.store.endpoint_url
    public = ours.replace("127.0.0.1", "localhost")
    outside = Storage(settings.model_copy(update={"s3_public_endpoint_url": public}))
    link = await outside.download_url(key, seconds=DAY, file_name=NAME)
    await outside.close()
    assert link.startswith(f"{public}/")
    assert (await http_get(link)).status_code == 200
    assert (await http_get(link.replace(public, ours))).status_code == 403


async def test_link_is_created_without_a_request(settings: Settings, key: str) -> None:
    nowhere = settings.model_copy(update={"s3_endpoint_url": "https://127.0.0.1:1"})
    storage = Storage(nowhere)
    link = urlsplit(await storage.download_url(key, seconds=60, file_name=NAME))
    await storage.close()
    assert f"{link.scheme}://{link.netloc}{link.path}" == (
        f"https://127.0.0.1:1/{settings.s3_bucket}/{key}"
    )
    assert settings.store.secret_key not in link.query


async def test_delete_removes_files_and_ignores_missing_ones(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    names = [f"{key}/{number}" for number in range(20)]
    links = [await upload_file(storage, name) for name in names]
    await storage.delete([*names[:19], f"{key}/none"])
    assert {name for name in await object_keys(s3, settings) if name.startswith(key)} == {names[19]}
    assert (await http_get(links[0])).status_code == 404
    await storage.delete(names)
    await storage.delete([])
    assert (await http_get(links[19])).status_code == 404
