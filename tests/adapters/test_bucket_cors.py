"""Pages of the allowed origins can send uploads to the store and read results from it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from botocore.exceptions import ClientError

from segmentql.adapters.bucket_cors import RULE_ID
from segmentql.adapters.storage import Storage
from segmentql.settings import Settings
from tests.conftest import until
from tests.files import NAME, upload_file

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

ORIGIN = "https://console.example.com"
OTHER_ORIGIN = "https://evil.example.com"
OTHERS: Any = {
    "ID": "of-others",
    "AllowedHeaders": ["*"],
    "AllowedMethods": ["HEAD"],
    "AllowedOrigins": ["https://other.example.com"],
    "MaxAgeSeconds": 60,
}


@pytest.fixture
def new_bucket(settings: Settings, _names: Iterator[str]) -> Settings:
    """Return the settings of a bucket that does not exist yet, and of no origin."""
    return settings.model_copy(update={"s3_bucket": next(_names)})


@pytest.fixture(scope="module")
def _names() -> Iterator[str]:
    return (f"cors-{number}" for number in range(100))


@asynccontextmanager
async def bucket_for(settings: Settings, *origins: str) -> AsyncIterator[Storage]:
    """Set up a bucket for origins, and open it."""
    storage = Storage(settings.model_copy(update={"s3_cors_origins": origins}))
    try:
        await storage.set_up()
        yield storage
    finally:
        await storage.close()


async def set_up(settings: Settings, *origins: str) -> None:
    async with bucket_for(settings, *origins):
        pass


async def rules(s3: "S3Client", settings: Settings) -> list[Any]:
    try:
        response = await s3.get_bucket_cors(Bucket=settings.s3_bucket)
    except ClientError as error:
        return [error.response["Error"]["Code"]]
    return list(response["CORSRules"])


def preflight_headers(origin: str, method: str = "PUT", header: str = "content-type") -> Any:
    """Return the headers of the request that a browser sends before an upload."""
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": header,
    }


async def is_allowed(url: str, headers: Any) -> bool:
    """Return whether a browser allows a page the request that a preflight request announces.

    See "CORS-preflight fetch" of https://fetch.spec.whatwg.org.
    """
    async with httpx.AsyncClient() as client:
        response = await client.options(url, headers=headers)
    found = response.headers
    assert "access-control-allow-credentials" not in found
    return (
        response.is_success
        and found.get("access-control-allow-origin") == headers["Origin"]
        and headers["Access-Control-Request-Method"]
        in found.get("access-control-allow-methods", "").split(", ")
        and headers["Access-Control-Request-Headers"]
        in found.get("access-control-allow-headers", "").split(", ")
    )


async def wait_until_in_effect(url: str) -> None:
    """Wait until the store uses the rules of the bucket. Before, it allows every origin."""

    async def is_in_effect() -> bool:
        return not await is_allowed(url, preflight_headers(OTHER_ORIGIN))

    await until(is_in_effect)


async def test_page_of_an_allowed_origin_uploads_and_reads_a_file(
    new_bucket: Settings, key: str
) -> None:
    async with (
        bucket_for(new_bucket, "https://first.example.com", ORIGIN) as storage,
        httpx.AsyncClient() as client,
    ):
        link = await storage.upload_link(key, size_bytes=5, expires_in_seconds=60)
        await wait_until_in_effect(link.url)
        assert await is_allowed(link.url, preflight_headers(ORIGIN))
        headers = {"Origin": ORIGIN, "Content-Type": "text/csv"}
        uploaded = await client.put(link.url, content=b"a\n1\n2", headers=headers)
        download = await storage.download_url(key, seconds=60, file_name=NAME)
        downloaded = await client.get(download, headers={"Origin": ORIGIN})
    assert downloaded.content == b"a\n1\n2"
    for response in (uploaded, downloaded):
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-credentials" not in response.headers
        assert "Origin" in response.headers["vary"]


async def test_page_may_use_no_other_origin_method_or_header(
    new_bucket: Settings, key: str
) -> None:
    async with bucket_for(new_bucket, ORIGIN) as storage, httpx.AsyncClient() as client:
        link = await upload_file(storage, key)
        await wait_until_in_effect(link)
        for headers in (
            preflight_headers(OTHER_ORIGIN),
            preflight_headers("null"),
            preflight_headers(f"{ORIGIN}.evil.example"),
            preflight_headers(ORIGIN, "DELETE"),
            preflight_headers(ORIGIN, header="x-amz-copy-source"),
        ):
            assert not await is_allowed(link, headers), headers
        response = await client.get(link, headers={"Origin": OTHER_ORIGIN})
        assert "access-control-allow-origin" not in response.headers


async def test_cors_setup_is_idempotent_and_changes_only_the_own_rule(
    s3: "S3Client", new_bucket: Settings
) -> None:
    await s3.create_bucket(Bucket=new_bucket.s3_bucket)
    await s3.put_bucket_cors(Bucket=new_bucket.s3_bucket, CORSConfiguration={"CORSRules": [OTHERS]})
    for origins in ([ORIGIN], [ORIGIN], [ORIGIN, OTHER_ORIGIN]):
        await set_up(new_bucket, *origins)
        first, second = await rules(s3, new_bucket)
        assert (first, second["ID"], second["AllowedOrigins"]) == (OTHERS, RULE_ID, origins)
    await set_up(new_bucket)
    assert await rules(s3, new_bucket) == [OTHERS]


async def test_last_rule_is_deleted_with_its_last_origin(
    s3: "S3Client", new_bucket: Settings
) -> None:
    await set_up(new_bucket, ORIGIN)
    assert len(await rules(s3, new_bucket)) == 1
    for _ in range(2):
        await set_up(new_bucket)
        assert await rules(s3, new_bucket) == ["NoSuchCORSConfiguration"]


async def test_local_store_accepts_uploads_of_every_page_without_origins(
    storage: Storage, key: str
) -> None:
    """The page is the local service's own, on any port. A link is still required."""
    link = await storage.upload_link(key, size_bytes=1, expires_in_seconds=60)
    for origin in ("http://127.0.0.1:8080", "http://localhost:8081"):
        assert await is_allowed(link.url, preflight_headers(origin))
        async with httpx.AsyncClient() as client:
            response = await client.put(link.url, content=b"x", headers={"Origin": origin})
            assert response.headers["access-control-allow-origin"] == origin
            response = await client.put(
                link.url.partition("?")[0], content=b"x", headers={"Origin": origin}
            )
            assert response.status_code == 403
