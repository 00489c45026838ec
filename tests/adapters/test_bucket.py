"""Creating the bucket and its rules is idempotent, on stores of different abilities."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from structlog.testing import capture_logs

from segmentql.adapters.bucket import FILES_RULE, RULE, UPLOADS_RULE
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
def new_bucket(settings: Settings, _names: Iterator[str]) -> Settings:
    """Yield the settings of a bucket that does not exist yet."""
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


def own_rules(days: int) -> list[Any]:
    return [
        expiry(UPLOADS_RULE, "imports/uploads/", min(days, 3)),
        expiry(FILES_RULE, "imports/files/", min(days, 8)),
        {
            **expiry(RULE, "", days),
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
        },
    ]


def expiry(rule: str, prefix: str, days: int) -> Any:
    return {
        "ID": rule,
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "Expiration": {"Days": days},
    }


async def rules(s3: "S3Client", settings: Settings) -> Any:
    configuration = await s3.get_bucket_lifecycle_configuration(Bucket=settings.s3_bucket)
    return configuration["Rules"]


async def test_new_bucket_is_private_and_expires_files(
    s3: "S3Client", new_bucket: Settings
) -> None:
    await set_up(new_bucket.model_copy(update={"report_retention_days": 3}))
    assert await rules(s3, new_bucket) == own_rules(4)
    async with httpx.AsyncClient() as client:
        for path in ("", "/", "/anything", "?list-type=2"):
            url = f"{new_bucket.store.endpoint_url}/{new_bucket.s3_bucket}{path}"
            assert (await client.get(url)).status_code == 403
            assert (await client.put(url, content=b"x")).status_code == 403


async def test_setup_is_idempotent_and_keeps_files(s3: "S3Client", new_bucket: Settings) -> None:
    await set_up(new_bucket)
    await s3.put_object(Bucket=new_bucket.s3_bucket, Key="kept", Body=b"x")
    await set_up(new_bucket)
    assert await rules(s3, new_bucket) == own_rules(31)
    configuration = await s3.list_objects_v2(Bucket=new_bucket.s3_bucket)
    assert [item["Key"] for item in configuration["Contents"]] == ["kept"]


async def test_new_retention_changes_only_the_own_rule(
    s3: "S3Client", new_bucket: Settings
) -> None:
    await s3.create_bucket(Bucket=new_bucket.s3_bucket)
    await s3.put_bucket_lifecycle_configuration(
        Bucket=new_bucket.s3_bucket, LifecycleConfiguration={"Rules": [OTHERS]}
    )
    for days in (30, 90, 1):
        await set_up(new_bucket.model_copy(update={"report_retention_days": days}))
        assert await rules(s3, new_bucket) == [OTHERS, *own_rules(days + 1)]


async def test_bucket_of_an_earlier_version_gets_the_new_rules(
    s3: "S3Client", new_bucket: Settings
) -> None:
    await s3.create_bucket(Bucket=new_bucket.s3_bucket)
    await s3.put_bucket_lifecycle_configuration(
        Bucket=new_bucket.s3_bucket, LifecycleConfiguration={"Rules": own_rules(31)[2:]}
    )
    await set_up(new_bucket)
    assert await rules(s3, new_bucket) == own_rules(31)


async def test_concurrent_setups_succeed(s3: "S3Client", new_bucket: Settings) -> None:
    await asyncio.gather(*(set_up(new_bucket) for _ in range(4)))
    assert await rules(s3, new_bucket) == own_rules(31)


async def test_region_is_sent_unless_it_is_the_default(
    s3: "S3Client", new_bucket: Settings
) -> None:
    await set_up(new_bucket.model_copy(update={"s3_region": "eu-central-1"}))
    assert await rules(s3, new_bucket) == own_rules(31)


async def test_missing_permission_to_create_a_bucket_is_reported(new_bucket: Settings) -> None:
    with pytest.raises(StoreRejected, match="rejects the secret key"):
        await set_up(new_bucket.model_copy(update={"s3_secret_key": "wrong"}))
    with pytest.raises(StoreUnavailable):
        await set_up(new_bucket.model_copy(update={"s3_endpoint_url": "http://127.0.0.1:1"}))


NO_LIFECYCLE = (404, "NoSuchLifecycleConfiguration")
ANSWERS = {
    "none": [(501, "NotImplemented")],
    "none that we may see": [(403, "AccessDenied")],
    "none that we may change": [NO_LIFECYCLE, (403, "AccessDenied"), (403, "AccessDenied")],
    "no end of uploads": [NO_LIFECYCLE, (400, "MalformedXML"), (200, ""), NO_LIFECYCLE],
    "a rule that is dropped": [NO_LIFECYCLE, (200, ""), NO_LIFECYCLE],
}


@pytest.mark.parametrize("response", ANSWERS)
async def test_store_with_partial_lifecycle_support_is_accepted(
    settings: Settings, response: str
) -> None:
    """The other store has the bucket and answers lifecycle requests in a different way."""
    ping = list(ANSWERS[response])
    async with other_store(ping, default=(501, "NotImplemented")) as url:
        await set_up(settings.model_copy(update={"s3_endpoint_url": url}))
    assert ping == []


ORIGINS = ("https://console.example.com",)
NO_CORS = (404, "NoSuchCORSConfiguration")
WITHOUT_CORS = {
    "none": ([(501, "NotImplemented")], "cors_not_set"),
    "none that we may see": ([(403, "AccessDenied")], "cors_not_set"),
    "none that we may set": ([NO_CORS, (501, "NotImplemented")], "cors_not_set"),
    "none for this method": ([NO_CORS, (405, "MethodNotAllowed")], "cors_not_set"),
    "a rule that is dropped": ([NO_CORS, (200, ""), NO_CORS], "cors_incomplete"),
}


@pytest.mark.parametrize("response", WITHOUT_CORS)
async def test_store_without_cors_rules_is_accepted_and_reported(
    settings: Settings, response: str
) -> None:
    responses, event = WITHOUT_CORS[response]
    remaining = list(responses)
    with capture_logs() as logged:
        async with other_store(remaining, "?cors", default=(501, "NotImplemented")) as url:
            changes = {"s3_endpoint_url": url, "s3_cors_origins": ORIGINS}
            await set_up(settings.model_copy(update=changes))
    assert remaining == []
    assert [entry["event"] for entry in logged if "cors" in entry["event"]] == [event]


async def test_store_without_cors_rules_is_no_problem_without_origins(settings: Settings) -> None:
    with capture_logs() as logged:
        async with other_store(
            [(501, "NotImplemented")], "?cors", default=(501, "NotImplemented")
        ) as url:
            await set_up(settings.model_copy(update={"s3_endpoint_url": url}))
    assert [entry["event"] for entry in logged if "cors" in entry["event"]] == []


STORED_CORS = f"""
<CORSConfiguration><CORSRule>
<ID>segmentql</ID><AllowedHeader>content-type</AllowedHeader>
<AllowedMethod>GET</AllowedMethod><AllowedMethod>PUT</AllowedMethod>
<AllowedOrigin>{ORIGINS[0]}</AllowedOrigin><MaxAgeSeconds>3600</MaxAgeSeconds>
</CORSRule></CORSConfiguration>
""".strip()


async def test_stored_cors_rule_is_not_written_again(settings: Settings) -> None:
    """The key may have no permission to write rules. A second request would get no response."""
    remaining = [(200, STORED_CORS)]
    with capture_logs() as logged:
        async with other_store(remaining, "?cors", default=(501, "NotImplemented")) as url:
            changes = {"s3_endpoint_url": url, "s3_cors_origins": ORIGINS}
            await set_up(settings.model_copy(update=changes))
    assert remaining == []
    assert [entry["event"] for entry in logged if "cors" in entry["event"]] == []


@asynccontextmanager
async def other_store(
    ping: list[tuple[int, str]], request: str = "?lifecycle", *, default: tuple[int, str]
) -> AsyncIterator[str]:
    """Serve a store that has every bucket.

    It gives `ping` one response after the other to requests of one kind, and to requests for rules
    of other kinds `default`. A response has a status, and an error code or a body.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = head.partition("content-length: ")[2].split("\r\n")[0]
        await reader.readexactly(int(length or 0))
        if request in head:
            status, code = ping.pop(0)
        else:
            is_about_rules = "?cors" in head or "?lifecycle" in head
            status, code = default if is_about_rules else (200, "")
        body = f"<Error><Code>{code}</Code></Error>" if code else "<Result/>"
        body = code if code.startswith("<") else body
        writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: application/xml\r\nConnection: close\r\n"
            f"Date: Tue, 24 Nov 2026 12:00:00 GMT\r\nContent-Length: {len(body)}\r\n\r\n"
            f"{body}".encode()
        )
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
