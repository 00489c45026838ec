"""Without keys in the settings, the credentials come from the default chain and are refreshed."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from segmentql.adapters.s3 import StoreTimeouts
from segmentql.adapters.storage import Storage
from segmentql.doctor.findings import Verdict
from segmentql.doctor.servers import examine_store
from segmentql.errors import StoreRejected, StoreUnavailable
from segmentql.settings import Settings
from tests.files import chunks, http_get

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

QUICK = StoreTimeouts(connect_seconds=2, read_seconds=5, attempts=1, call_seconds=30)
SMALL = b"a,b\n1,2\n"


@pytest.fixture(autouse=True)
def empty_chain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make the default chain find nothing, and call no server for an instance's role."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture
def keyless(settings: Settings, s3: "S3Client") -> Settings:
    """Return the settings of the existing bucket without keys."""
    return settings.model_copy(update={"s3_access_key": None, "s3_secret_key": None})


@dataclass
class CredentialsEndpoint:
    """The endpoint from which a container gets the credentials of its role."""

    access_key: str
    secret_key: str
    token: str = ""
    lifetime: timedelta = timedelta(hours=6)
    requests: int = 0
    is_failing: bool = False
    expires_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        self.expires_at = (datetime.now(UTC) + self.lifetime).replace(microsecond=0)
        body = json.dumps(
            {
                "AccessKeyId": self.access_key,
                "SecretAccessKey": self.secret_key,
                "Token": self.token,
                "Expiration": self.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        )
        status = "500 Error" if self.is_failing else "200 OK"
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            f"{body}".encode()
        )
        await writer.drain()
        writer.close()


@pytest.fixture
async def endpoint(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[CredentialsEndpoint]:
    endpoint = CredentialsEndpoint(settings.store.access_key, settings.store.secret_key)
    async with await asyncio.start_server(endpoint.answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{port}/role")
        yield endpoint


async def round_trip(storage: Storage, key: str) -> None:
    await storage.upload(key, chunks(SMALL), content_type="text/csv")
    url = await storage.download_url(key, seconds=60, file_name="a.csv")
    assert (await http_get(url)).content == SMALL
    await storage.delete([key])


async def test_keys_of_the_environment_are_used(
    settings: Settings, keyless: Settings, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", settings.store.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", settings.store.secret_key)
    storage = Storage(keyless, QUICK)
    await round_trip(storage, key)
    await storage.close()


async def test_keys_of_a_profile_are_used(
    settings: Settings,
    keyless: Settings,
    key: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "credentials").write_text(
        f"[segmentql]\naws_access_key_id = {settings.store.access_key}\n"
        f"aws_secret_access_key = {settings.store.secret_key}\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "segmentql")
    storage = Storage(keyless, QUICK)
    await round_trip(storage, key)
    await storage.close()
    monkeypatch.setenv("AWS_PROFILE", "unknown")
    storage = Storage(keyless, QUICK)
    with pytest.raises(StoreUnavailable, match="ProfileNotFound"):
        await storage.check()
    await storage.close()


async def test_session_token_is_sent_and_signed(
    keyless: Settings, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.readuntil(b"\r\n\r\n"))
        body = b"<Error><Code>ExpiredToken</Code></Error>"
        writer.write(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-token")
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        storage = Storage(keyless.model_copy(update={"s3_endpoint_url": url}), QUICK)
        with pytest.raises(StoreRejected, match="the session token of the credentials has expired"):
            await storage.delete([key])
        link = await storage.download_url(key, seconds=60, file_name="a.csv")
        await storage.close()
    (request,) = received
    headers = request.lower()
    assert b"x-amz-security-token: the-token\r\n" in headers
    assert b"x-amz-security-token" in headers.partition(b"signedheaders=")[2].split(b",")[0]
    assert parse_qs(urlsplit(link).query)["X-Amz-Security-Token"] == ["the-token"]


async def test_valid_keys_are_fetched_once(
    keyless: Settings, key: str, endpoint: CredentialsEndpoint
) -> None:
    storage = Storage(keyless, QUICK)
    await round_trip(storage, key)
    await round_trip(storage, key)
    assert endpoint.requests == 1
    await storage.close()


async def test_keys_are_refreshed_before_they_expire(
    keyless: Settings, key: str, endpoint: CredentialsEndpoint
) -> None:
    endpoint.lifetime = timedelta(minutes=5)  # the client refreshes keys that expire so soon
    known_key = endpoint.access_key
    storage = Storage(keyless, QUICK)
    await round_trip(storage, key)
    endpoint.access_key = "unknown"
    with pytest.raises(StoreRejected, match="does not know the access key"):
        await storage.check()
    endpoint.access_key = known_key
    await round_trip(storage, key)
    await storage.close()


async def test_upload_link_expires_with_the_keys(
    keyless: Settings, key: str, endpoint: CredentialsEndpoint
) -> None:
    storage = Storage(keyless, QUICK)
    short = await storage.upload_link(key, size_bytes=1, expires_in_seconds=600)
    long = await storage.upload_link(key, size_bytes=1, expires_in_seconds=604_800)
    await storage.close()
    assert short.expires_at < endpoint.expires_at
    assert long.expires_at == endpoint.expires_at


async def test_missing_credentials_are_reported_and_looked_up_again(
    keyless: Settings, key: str, endpoint: CredentialsEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(keyless, QUICK)
    monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    await storage.open()  # a process starts without them
    for call in (
        storage.check(),
        storage.download_url(key, seconds=60, file_name="a.csv"),
        storage.upload_link(key, size_bytes=1, expires_in_seconds=60),
    ):
        with pytest.raises(StoreUnavailable, match="there are no credentials"):
            await call
    (finding,) = [finding async for finding in examine_store(keyless)]
    assert finding.verdict is Verdict.FAILED
    assert "there are no credentials for the object store" in finding.observation
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", endpoint.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", endpoint.secret_key)
    await round_trip(storage, key)
    await storage.close()


@pytest.mark.slow  # the client sends three requests, with a pause of a second
async def test_failing_endpoint_of_credentials_is_called_again(
    keyless: Settings, key: str, endpoint: CredentialsEndpoint
) -> None:
    endpoint.is_failing = True
    storage = Storage(keyless, QUICK)
    with pytest.raises(StoreUnavailable, match="CredentialRetrievalError"):
        await storage.check()
    endpoint.is_failing = False
    await round_trip(storage, key)
    await storage.close()
