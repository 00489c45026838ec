"""The S3 protocol: clients, how long they wait, and what the store's faults mean.

Any store will do: plain calls alone, the bucket in the path, no checksums beyond the signature,
which covers what is sent. `aioboto3` is known here and nowhere else, and imported when a client is
first asked for: that takes a third of a second, which the start of the API need not.
"""

import asyncio
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from segmentql.errors import BucketMissing, StoreFailed, StoreRejected, StoreUnavailable
from segmentql.settings import StoreSettings

if TYPE_CHECKING:
    from aioboto3 import Session
    from botocore.exceptions import ClientError
    from types_aiobotocore_s3.client import S3Client
    from types_aiobotocore_s3.type_defs import ResponseMetadataTypeDef

T = TypeVar("T")

NO_UPLOAD: Final = "NoSuchUpload"

_NO_BUCKET: Final = "NoSuchBucket"
_LATER: Final = {"RequestTimeout", NO_UPLOAD}
"""What another try may mend, though the status says otherwise."""

_NEVER: Final = {"NotImplemented"}
"""The reverse."""

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_REASONS: Final = {
    _NO_BUCKET: "the object store has no such bucket: run `segmentql bucket`",
    "InvalidAccessKeyId": "the object store does not know the access key",
    "SignatureDoesNotMatch": "the object store does not take the secret key",
    "AccessDenied": "the object store does not let this access key do that",
    "RequestTimeTooSkewed": "this machine's clock and the object store's are too far apart",
    "AuthorizationHeaderMalformed": "the object store is in another region than is set",
    "PermanentRedirect": "the bucket is in another region, or at another endpoint",
}
_SERVER_FAULT: Final = 500
_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True)
class StoreTimeouts:
    """How long the store may take."""

    connect_seconds: float = 2
    read_seconds: float = 20
    """From the end of a request to its answer."""
    attempts: int = 3
    """Of one call, where the store is not reached or has a fault of its own."""
    call_seconds: float = 120
    """One call with all its attempts; also where the store stops reading what is sent."""


DEFAULT_TIMEOUTS: Final = StoreTimeouts()


class S3:
    """Clients of one process for one store; used on one event loop."""

    def __init__(self, store: StoreSettings, limits: StoreTimeouts = DEFAULT_TIMEOUTS) -> None:
        self._store = store
        self._limits = limits
        self._opening = asyncio.Lock()
        self._opened = AsyncExitStack()
        self._clients: tuple[S3Client, S3Client] | None = None

    async def client(self) -> "S3Client":
        """The one that asks the store; its calls are awaited by `call`."""
        return (await self._open())[0]

    async def signer(self) -> "S3Client":
        """The one that signs links, for the public endpoint. It asks nobody."""
        return (await self._open())[1]

    async def close(self) -> None:
        self._clients = None
        await self._opened.aclose()

    async def call(self, call: Awaitable[T]) -> T:
        """The answer to a call of the client.

        Raises:
            StoreFailed: there is none, or the store refuses.
        """
        from botocore import exceptions as botocore  # noqa: PLC0415 - imported with the client
        from botocore.parsers import ResponseParserError  # noqa: PLC0415

        try:
            async with asyncio.timeout(self._limits.call_seconds):
                return await call
        except botocore.ClientError as error:
            raise _translate_error(error) from error
        except (botocore.ReadTimeoutError, TimeoutError) as error:
            raise StoreUnavailable("the object store does not answer in time") from error
        except ResponseParserError as error:
            raise StoreUnavailable("what answers is not an object store") from error
        except (botocore.HTTPClientError, botocore.ConnectionError) as error:
            raise StoreUnavailable("the object store cannot be reached") from error

    async def _open(self) -> "tuple[S3Client, S3Client]":
        async with self._opening:
            if self._clients is None:
                store = self._store
                session = await asyncio.to_thread(_session, store)
                ours = await self._client(session, store.endpoint_url)
                is_same = store.public_endpoint_url == store.endpoint_url
                self._clients = (
                    ours,
                    ours if is_same else await self._client(session, store.public_endpoint_url),
                )
            return self._clients

    async def _client(self, session: "Session", endpoint_url: str) -> "S3Client":
        from aiobotocore.config import AioConfig  # noqa: PLC0415 - imported by `_session`

        limits = self._limits
        configuration = AioConfig(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            connect_timeout=limits.connect_seconds,
            read_timeout=limits.read_seconds,
            retries={"mode": "standard", "total_max_attempts": limits.attempts},
            # Not every store takes those that botocore adds of itself.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            # A proxy is for what is not on this machine.
            proxies={} if urlsplit(endpoint_url).hostname in _LOOPBACK else None,
        )
        client = await self._opened.enter_async_context(
            session.client("s3", endpoint_url=endpoint_url, config=configuration)
        )
        client.meta.events.register("before-call.s3.UploadPart", _say_that_parts_are_bytes)
        return client


def _say_that_parts_are_bytes(params: dict[str, Any], **_event: object) -> None:
    # A store that is not told looks for itself, and SeaweedFS compresses what looks like text:
    # a tenth of the time that a report of a million rows takes.
    params["headers"]["Content-Type"] = "binary/octet-stream"


def clock(metadata: "ResponseMetadataTypeDef") -> datetime:
    """The store's clock when it answered, to the second."""
    return parsedate_to_datetime(metadata["HTTPHeaders"]["date"])


def _session(store: StoreSettings) -> "Session":
    """A session that has read what a client needs: slow, and so on a thread."""
    import aioboto3  # noqa: PLC0415 - see above
    from aiobotocore.session import AioSession  # noqa: PLC0415

    inner = AioSession()
    asyncio.run(inner.get_service_model("s3"))
    return aioboto3.Session(
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key,
        region_name=store.region,
        botocore_session=inner,
    )


def _translate_error(error: "ClientError") -> StoreFailed:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    has_reason = not code.isdigit()  # else it is botocore's, for an answer that S3 does not give
    shown = code if has_reason else f"HTTP {code}"
    if code in _LATER or (status >= _SERVER_FAULT and code not in _NEVER):
        return StoreUnavailable(f"the object store has a fault of its own ({shown})", code)
    if code == _NO_BUCKET:
        return BucketMissing(_REASONS[code], code)
    if not has_reason:
        return StoreRejected(f"what answers is no object store, by its words ({shown})", code)
    return StoreRejected(_REASONS.get(code, f"the object store refuses ({shown})"), code)
