"""S3 clients, their timeouts, and the translation of their errors.

Any S3-compatible store works: only basic calls are used, and there are no checksums except the
signature, which covers the body. Only this module uses `aioboto3`. It is
imported at the first use, because the import takes a third of a second of the API's start.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from segmentql.errors import (
    BucketMissing,
    ObjectMissing,
    StoreFailed,
    StoreRejected,
    StoreUnavailable,
)
from segmentql.store_settings import StoreSettings
from segmentql.tracing import setup
from segmentql.tracing.calls import now_ns, record_store_call

if TYPE_CHECKING:
    from aioboto3 import Session
    from aiobotocore.credentials import AioCredentials
    from aiobotocore.session import AioSession
    from botocore.exceptions import ClientError
    from types_aiobotocore_s3.client import S3Client
    from types_aiobotocore_s3.type_defs import ResponseMetadataTypeDef

T = TypeVar("T")

MAX_CONCURRENT_CALLS: Final = 8
"""The maximum number of concurrent calls that delete files or abort uploads."""

NO_UPLOAD: Final = "NoSuchUpload"

_NO_BUCKET: Final = "NoSuchBucket"
_NO_OBJECT: Final = "NoSuchKey"
CUT_SHORT: Final = "the object store ended a file before its end"

_TEMPORARY: Final = {"RequestTimeout", NO_UPLOAD}
"""Errors after which a retry can succeed, although their status is below 500."""

_PERMANENT: Final = {"NotImplemented"}
"""Errors after which a retry cannot succeed, although their status is 500 or above."""

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_REASONS: Final = {
    _NO_BUCKET: "the object store has no such bucket: run `segmentql bucket`",
    _NO_OBJECT: "the object store has no such file",
    "InvalidAccessKeyId": "the object store does not know the access key",
    "SignatureDoesNotMatch": "the object store rejects the secret key",
    "AccessDenied": "the object store denies this operation to the access key",
    "ExpiredToken": "the session token of the credentials has expired",
    "InvalidToken": "the object store does not accept the session token of the credentials",
    "RequestTimeTooSkewed": "this machine's clock and the object store's are too far apart",
    "AuthorizationHeaderMalformed": "the object store is not in the configured region",
    "PermanentRedirect": "the bucket is in another region, or at another endpoint",
}
NO_CREDENTIALS: Final = (
    "there are no credentials for the object store: set SEGMENTQL_S3_ACCESS_KEY and"
    " SEGMENTQL_S3_SECRET_KEY, or provide a role or AWS_* variables"
)
_SERVER_ERROR: Final = 500
_FAILED: Final = 300
_STARTED: Final = "segmentql.started"
_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True)
class StoreTimeouts:
    """Timeouts and retries of calls to the store."""

    connect_seconds: float = 2
    read_seconds: float = 20
    """The time from the end of a request to its response."""
    attempts: int = 3
    """The maximum number of attempts of a call, if the store is unreachable or fails."""
    call_seconds: float = 120
    """The time of a call with all its attempts, even if the store stops reading the body."""


DEFAULT_TIMEOUTS: Final = StoreTimeouts()


class S3:
    """The clients of one process for one store. For use on one event loop."""

    def __init__(self, store: StoreSettings, timeouts: StoreTimeouts = DEFAULT_TIMEOUTS) -> None:
        self._store = store
        self._timeouts = timeouts
        self._opening = asyncio.Lock()
        self._opened = AsyncExitStack()
        self._clients: tuple[S3Client, S3Client] | None = None
        self._credentials: AioCredentials | None = None

    async def client(self) -> "S3Client":
        """Return the client that calls the store. Pass its calls to `call`."""
        return (await self._open())[0]

    async def signer(self) -> "S3Client":
        """Return the client that signs links for the public endpoint. It does not connect."""
        return (await self._open())[1]

    async def check_credentials(self) -> None:
        """Look up the credentials, or refresh them if they expire soon.

        Raises:
            StoreUnavailable: there are none.
        """
        await self._open()
        if self._credentials is not None:
            await self.call(self._credentials.get_frozen_credentials())

    def credentials_expire_at(self) -> datetime | None:
        """Return when the credentials of the last signature expire. None: they do not."""
        # aiobotocore has no public attribute for it. Only temporary credentials have this one.
        expires_at: datetime | None = getattr(self._credentials, "_expiry_time", None)
        return expires_at

    async def close(self) -> None:
        self._clients = None
        await self._opened.aclose()

    async def call(self, call: Awaitable[T]) -> T:
        """Await a call of the client, or a read of a response's body; return its result.

        Raises:
            StoreFailed: the call failed.
        """
        with _translate_errors():
            async with asyncio.timeout(self._timeouts.call_seconds):
                return await call

    async def _open(self) -> "tuple[S3Client, S3Client]":
        async with self._opening:
            if self._clients is None:
                with _translate_errors():
                    self._clients = await self._make_clients()
            return self._clients

    async def _make_clients(self) -> "tuple[S3Client, S3Client]":
        store = self._store
        session, inner = await asyncio.to_thread(_session, store)
        # The clients keep the credentials and refresh them. Without any, the next call tries again.
        self._credentials = await inner.get_credentials()
        if self._credentials is None:
            raise StoreUnavailable(NO_CREDENTIALS)
        client = await self._client(session, store.endpoint_url)
        if store.public_endpoint_url == store.endpoint_url:
            return client, client
        return client, await self._client(session, store.public_endpoint_url)

    async def _client(self, session: "Session", endpoint_url: str) -> "S3Client":
        from aiobotocore.config import AioConfig  # noqa: PLC0415 - imported by `_session`

        timeouts = self._timeouts
        configuration = AioConfig(
            signature_version="s3v4",
            s3={"addressing_style": "virtual" if self._store.is_virtual(endpoint_url) else "path"},
            connect_timeout=timeouts.connect_seconds,
            read_timeout=timeouts.read_seconds,
            retries={"mode": "standard", "total_max_attempts": timeouts.attempts},
            # Not every store accepts the checksums that botocore adds by default.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            # Local stores are reached without a proxy.
            proxies={} if urlsplit(endpoint_url).hostname in _LOOPBACK else None,
        )
        client = await self._opened.enter_async_context(
            session.client("s3", endpoint_url=endpoint_url, config=configuration)
        )
        client.meta.events.register("before-call.s3.UploadPart", _set_binary_content_type)
        if setup.is_on():
            _trace_calls(client, self._store.bucket)
        return client


def _set_binary_content_type(params: dict[str, Any], **_event: object) -> None:
    # Without this header, SeaweedFS detects text and compresses it, which takes a tenth of the time
    # of a report with a million rows.
    params["headers"]["Content-Type"] = "binary/octet-stream"


def _trace_calls(client: "S3Client", bucket: str) -> None:
    """Record a span for each call of a client with its retries, until the head of the response."""

    def before(model: Any, context: dict[str, Any], **_event: object) -> None:
        context[_STARTED] = now_ns(), model.name

    def after(context: dict[str, Any], http_response: Any, parsed: Any, **_event: object) -> None:
        started_ns, operation = context[_STARTED]
        status: int = http_response.status_code
        error = str(parsed.get("Error", {}).get("Code", status)) if status >= _FAILED else None
        record_store_call(operation, bucket, started_ns, status, error)

    def failed(context: dict[str, Any], exception: Exception, **_event: object) -> None:
        started_ns, operation = context[_STARTED]
        record_store_call(operation, bucket, started_ns, None, type(exception).__name__)

    client.meta.events.register("before-call.s3", before)
    client.meta.events.register("after-call.s3", after)
    client.meta.events.register("after-call-error.s3", failed)


def server_clock(metadata: "ResponseMetadataTypeDef") -> datetime:
    """Return the store's time at the response, to the second."""
    return parsedate_to_datetime(metadata["HTTPHeaders"]["date"])


def _session(store: StoreSettings) -> "tuple[Session, AioSession]":
    """Return a session with the service model loaded. Slow, so it runs in a thread.

    Without keys in the settings, the session finds credentials by the default chain.
    """
    import aioboto3  # noqa: PLC0415 - see the module docstring
    from aiobotocore.session import AioSession  # noqa: PLC0415

    inner = AioSession()
    asyncio.run(inner.get_service_model("s3"))
    session = aioboto3.Session(
        aws_access_key_id=store.access_key or None,
        aws_secret_access_key=store.secret_key or None,
        region_name=store.region,
        botocore_session=inner,
    )
    return session, inner


@contextmanager
def _translate_errors() -> Iterator[None]:
    from aiohttp import ClientPayloadError  # noqa: PLC0415 - imported with the client
    from botocore import exceptions as botocore  # noqa: PLC0415
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    credential_errors = (
        botocore.NoCredentialsError,
        botocore.PartialCredentialsError,
        botocore.CredentialRetrievalError,
        botocore.MetadataRetrievalError,
        botocore.TokenRetrievalError,
        botocore.ProfileNotFound,
        botocore.ConfigParseError,
        botocore.InvalidConfigError,
        botocore.SSOError,
    )
    try:
        yield
    except botocore.ClientError as error:
        raise _translate_error(error) from error
    except credential_errors as error:
        raise StoreUnavailable(f"{NO_CREDENTIALS} ({type(error).__name__})") from error
    except (botocore.ReadTimeoutError, TimeoutError) as error:
        raise StoreUnavailable("the object store does not respond in time") from error
    except ResponseParserError as error:
        raise StoreUnavailable("the response is not from an object store") from error
    except (ClientPayloadError, botocore.IncompleteReadError) as error:
        raise StoreUnavailable(CUT_SHORT) from error
    except (botocore.HTTPClientError, botocore.ConnectionError) as error:
        raise StoreUnavailable("the object store cannot be reached") from error


def _translate_error(error: "ClientError") -> StoreFailed:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    is_s3_code = not code.isdigit()  # otherwise botocore made it from the HTTP status
    shown = code if is_s3_code else f"HTTP {code}"
    if code in _TEMPORARY or (status >= _SERVER_ERROR and code not in _PERMANENT):
        return StoreUnavailable(f"the object store failed internally ({shown})", code)
    if code == _NO_BUCKET:
        return BucketMissing(_REASONS[code], code)
    if code == _NO_OBJECT:
        return ObjectMissing(_REASONS[code], code)
    if not is_s3_code:
        return StoreRejected(f"the response is not from an object store ({shown})", code)
    return StoreRejected(
        _REASONS.get(code, f"the object store rejected the operation ({shown})"), code
    )


async def run_limited(calls: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run calls in batches of `MAX_CONCURRENT_CALLS`. An error stops after its batch."""
    for first in range(0, len(calls), MAX_CONCURRENT_CALLS):
        batch = [call() for call in calls[first : first + MAX_CONCURRENT_CALLS]]
        for result in await asyncio.gather(*batch, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
