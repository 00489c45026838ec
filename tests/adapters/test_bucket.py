"""Making the bucket and its lifecycle: safe to repeat, on stores that know more or less of it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from segmentql.adapters.bucket import RULE
from segmentql.adapters.storage import Storage
from segmentql.errors import StoreRejected, StoreUnavailable
from segmentql.settings import Settings

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

OTHERS: Any = {
    "ID": "somebody-else",
    "Status": "Enabled",
    "Filter": {"Prefix": "elsewhere/"},
    "Expiration": {"Days": 7},
}


@pytest.fixture
def made(settings: Settings, _names: Iterator[str]) -> Settings:
    """The settings of a bucket that does not exist yet."""
    return settings.model_copy(update={"s3_bucket": next(_names)})


@pytest.fixture(scope="module")
def _names() -> Iterator[str]:
    return (f"made-{number}" for number in range(100))


async def set_up(settings: Settings) -> None:
    storage = Storage(settings)
    try:
        await storage.set_up()
    finally:
        await storage.close()


def ours(days: int) -> Any:
    return {
        "ID": RULE,
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "Expiration": {"Days": days},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }


async def rules(s3: "S3Client", settings: Settings) -> Any:
    found = await s3.get_bucket_lifecycle_configuration(Bucket=settings.s3_bucket)
    return found["Rules"]


async def test_makes_a_private_bucket_whose_files_expire_a_day_after_their_time(
    s3: "S3Client", made: Settings
) -> None:
    await set_up(made.model_copy(update={"report_retention_days": 3}))
    assert await rules(s3, made) == [ours(4)]
    async with httpx.AsyncClient() as client:
        for path in ("", "/", "/anything", "?list-type=2"):
            url = f"{made.store.endpoint_url}/{made.s3_bucket}{path}"
            assert (await client.get(url)).status_code == 403
            assert (await client.put(url, content=b"x")).status_code == 403


async def test_a_second_time_changes_nothing_and_keeps_the_files(
    s3: "S3Client", made: Settings
) -> None:
    await set_up(made)
    await s3.put_object(Bucket=made.s3_bucket, Key="kept", Body=b"x")
    await set_up(made)
    assert await rules(s3, made) == [ours(31)]
    found = await s3.list_objects_v2(Bucket=made.s3_bucket)
    assert [item["Key"] for item in found["Contents"]] == ["kept"]


async def test_another_retention_changes_our_rule_and_no_other(
    s3: "S3Client", made: Settings
) -> None:
    await s3.create_bucket(Bucket=made.s3_bucket)
    await s3.put_bucket_lifecycle_configuration(
        Bucket=made.s3_bucket, LifecycleConfiguration={"Rules": [OTHERS]}
    )
    for days in (30, 90):
        await set_up(made.model_copy(update={"report_retention_days": days}))
        assert await rules(s3, made) == [OTHERS, ours(days + 1)]


async def test_many_may_make_it_at_once(s3: "S3Client", made: Settings) -> None:
    await asyncio.gather(*(set_up(made) for _ in range(4)))
    assert await rules(s3, made) == [ours(31)]


async def test_a_region_other_than_the_first_is_named(s3: "S3Client", made: Settings) -> None:
    await set_up(made.model_copy(update={"s3_region": "eu-central-1"}))
    assert await rules(s3, made) == [ours(31)]


async def test_who_may_not_make_a_bucket_is_told_so(made: Settings) -> None:
    with pytest.raises(StoreRejected, match="rejects the secret key"):
        await set_up(made.model_copy(update={"s3_secret_key": "wrong"}))
    with pytest.raises(StoreUnavailable):
        await set_up(made.model_copy(update={"s3_endpoint_url": "http://127.0.0.1:1"}))


NO_LIFECYCLE = (404, "NoSuchLifecycleConfiguration")
ANSWERS = {
    "none": [(501, "NotImplemented")],
    "none that we may see": [(403, "AccessDenied")],
    "none that we may change": [NO_LIFECYCLE, (403, "AccessDenied"), (403, "AccessDenied")],
    "no end of uploads": [NO_LIFECYCLE, (400, "MalformedXML"), (200, ""), NO_LIFECYCLE],
    "a rule that is dropped": [NO_LIFECYCLE, (200, ""), NO_LIFECYCLE],
}


@pytest.mark.parametrize("known", ANSWERS)
async def test_a_store_that_knows_little_of_lifecycles_is_good_enough(
    settings: Settings, known: str
) -> None:
    """Somebody else's store, as far as it is asked here: it has the bucket."""
    ping = list(ANSWERS[known])
    async with other_store(ping) as url:
        await set_up(settings.model_copy(update={"s3_endpoint_url": url}))
    assert ping == []


@asynccontextmanager
async def other_store(ping: list[tuple[int, str]]) -> AsyncIterator[str]:
    """Has every bucket; gives `ping` one after the other to questions about lifecycles."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = head.partition("content-length: ")[2].split("\r\n")[0]
        await reader.readexactly(int(length or 0))
        status, code = ping.pop(0) if "?lifecycle" in head else (200, "")
        body = f"<Error><Code>{code}</Code></Error>" if code else "<Result/>"
        writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: application/xml\r\nConnection: close\r\n"
            f"Date: Tue, 24 Nov 2026 12:00:00 GMT\r\nContent-Length: {len(body)}\r\n\r\n"
            f"{body}".encode()
        )
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
