"""The object store: files whole or not at all, and links that expire; all on a real store."""

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
async def test_a_file_comes_out_as_it_went_in(storage: Storage, key: str, size_bytes: int) -> None:
    data = sample_bytes(size_bytes)
    assert await storage.upload(key, chunks(data), content_type="text/csv") == size_bytes
    link = await storage.download_url(key, seconds=DAY, file_name=NAME)
    response = await http_get(link)
    assert response.status_code == 200
    assert response.content == data
    assert response.headers["content-disposition"] == f'attachment; filename="{NAME}"'
    assert response.headers["content-type"] == "text/csv; charset=utf-8"


@pytest.mark.parametrize("piece_bytes", [PART_BYTES - 1, 2 * PART_BYTES + 1, 100 * PART_BYTES])
async def test_pieces_may_be_larger_than_parts(
    storage: Storage, key: str, piece_bytes: int
) -> None:
    data = sample_bytes(20 * 1024 * 1024)
    await storage.upload(key, chunks(data, piece_bytes), content_type="text/csv")
    link = await storage.download_url(key, seconds=DAY, file_name=NAME)
    assert (await http_get(link)).content == data


async def test_a_file_replaces_the_one_of_its_key(storage: Storage, key: str) -> None:
    link = await upload_file(storage, key, b"first\n")
    await upload_file(storage, key, sample_bytes(PART_BYTES + 1))
    assert (await http_get(link)).content == sample_bytes(PART_BYTES + 1)
    await upload_file(storage, key, b"third\n")
    assert (await http_get(link)).content == b"third\n"


async def test_a_file_is_of_its_type_and_its_parts_are_bytes(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    """A store that is not told what a part is compresses it, at the price of a report's tenth."""
    sent: list[str | bytes] = []

    def note(request: AWSPreparedRequest, **_event: object) -> None:
        sent.append(request.headers["Content-Type"])

    ours, bucket = S3(settings.store), settings.s3_bucket
    client = await ours.client()
    client.meta.events.register("before-send.s3.UploadPart", note)
    begun = await client.create_multipart_upload(Bucket=bucket, Key=key)
    upload = begun["UploadId"]
    await client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"a,b\n")
    await client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
    await ours.close()
    assert sent == [b"binary/octet-stream"]

    await storage.upload(key, chunks(sample_bytes(PART_BYTES + 1)), content_type="text/csv")
    assert (await s3.head_object(Bucket=settings.s3_bucket, Key=key))["ContentType"] == "text/csv"


@pytest.mark.parametrize("piece_bytes", [1024 * 1024, 2 * PART_BYTES + 1])
async def test_less_than_a_part_is_kept_back_and_nothing_is_visible_before_the_end(
    storage: Storage, s3: "S3Client", settings: Settings, key: str, piece_bytes: int
) -> None:
    """Asked of the store itself, each time before it is given more."""
    behind: list[int] = []

    async def source() -> AsyncIterator[bytes]:
        given = 0
        async for piece in chunks(sample_bytes(40 * 1024 * 1024), piece_bytes):
            yield piece
            given += len(piece)
            behind.append(given - await stored_bytes())
            assert key not in await object_keys(s3, settings)

    async def stored_bytes() -> int:
        found = await s3.list_multipart_uploads(Bucket=settings.s3_bucket)
        total = 0
        for upload in found.get("Uploads", []):
            parts = await s3.list_parts(
                Bucket=settings.s3_bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
            total += sum(part["Size"] for part in parts.get("Parts", []))
        return total

    assert await storage.upload(key, source(), content_type="text/csv") == 40 * 1024 * 1024
    assert max(behind) < PART_BYTES
    assert key in await object_keys(s3, settings)


async def test_many_files_at_once(storage: Storage, key: str) -> None:
    async def one(number: int) -> None:
        data = sample_bytes(PART_BYTES + number if number % 10 == 0 else number)
        response = await http_get(await upload_file(storage, f"{key}/{number}", data))
        assert response.content == data

    await asyncio.gather(*(one(number) for number in range(30)))


async def test_a_key_without_a_signature_is_refused(storage: Storage, key: str) -> None:
    link = await upload_file(storage, key)
    assert (await http_get(link)).status_code == 200
    assert (await http_get(link.partition("?")[0])).status_code == 403


VALUES = re.compile(
    r"tests/\d+.csv|segments-7-2023-09|charset|(?<=Credential=)[^%]+|(?<=Date=)\d+|(?<=T)\d+(?=Z)"
    r"|(?<=Expires=)\d+|(?<=Signature=)\w+"
)
"""All of a link but S3's own words, without which it is no link."""


async def test_a_link_with_one_character_changed_is_refused(storage: Storage, key: str) -> None:
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
    """A letter for a letter, a digit for a digit."""
    return {"a": "b", "0": "1"}.get(character) or ("0" if character.isdigit() else "a")


@pytest.mark.slow
async def test_a_link_ends_when_it_is_said_to(storage: Storage, key: str) -> None:
    await upload_file(storage, key)
    link = await storage.download_url(key, seconds=5, file_name=NAME)
    assert (await http_get(link)).status_code == 200

    async def ended() -> bool:
        return (await http_get(link)).status_code == 403

    await until(ended)


async def test_a_link_is_signed_for_the_public_endpoint_and_for_no_other(
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


async def test_a_link_is_made_without_asking_anybody(settings: Settings, key: str) -> None:
    nowhere = settings.model_copy(update={"s3_endpoint_url": "https://127.0.0.1:1"})
    storage = Storage(nowhere)
    link = urlsplit(await storage.download_url(key, seconds=60, file_name=NAME))
    await storage.close()
    assert f"{link.scheme}://{link.netloc}{link.path}" == (
        f"https://127.0.0.1:1/{settings.s3_bucket}/{key}"
    )
    assert settings.store.secret_key not in link.query


async def test_deleted_files_are_gone_and_what_is_not_there_is_no_error(
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
