"""Responses of `/graphql` and OFREP, ready to be sent. Constant headers are built once."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

import orjson

from segmentql.adapters.content_encoding import ContentEncoding
from segmentql.adapters.http import SAFE_HEADERS
from segmentql.adapters.pages import Page
from segmentql.graphql.http.media_types import HTML

NOT_MODIFIED: Final = 304

HeaderList: TypeAlias = Sequence[tuple[bytes, bytes]]

_SAFE_HEADERS: Final = [(name.encode(), value.encode()) for name, value in SAFE_HEADERS.items()]


class PreparedResponse:
    """A response that is ready to be sent."""

    __slots__ = ("body", "chunks", "content_encoding", "headers", "media_type", "status")

    def __init__(
        self, body: bytes, status: int, media_type: str, *, chunks: Sequence[bytes] = ()
    ) -> None:
        """Create a response.

        Args:
            body: The body, if there are no chunks.
            status: The HTTP status.
            media_type: The media type of the body, whose character set is UTF-8.
            chunks: The body of a large response.
        """
        self.body = body
        self.status = status
        self.media_type = media_type
        self.chunks = chunks
        self.headers: HeaderList = ()
        """Additional headers, which replace default headers of the same name."""
        self.content_encoding: ContentEncoding | None = None
        """The encoding of the body; None if it does not depend on `Accept-Encoding`."""

    @property
    def size(self) -> int:
        """The size of the body in bytes."""
        return sum(map(len, self.chunks)) if self.chunks else len(self.body)

    def all_headers(self, request_id: str) -> list[tuple[bytes, bytes]]:
        """Return the headers for a request."""
        given = {name for name, _ in self.headers}
        headers = [
            *self.headers,
            *(header for header in self._default_headers if header[0] not in given),
            (b"x-request-id", request_id.encode()),
        ]
        if self.status != NOT_MODIFIED:  # there, the length would be that of the omitted body
            headers.append((b"content-length", str(self.size).encode()))
        return headers

    def header_lines(self, request_id: str) -> bytes:
        """Return the headers for a request as lines. The response must have no `chunks`."""
        if self.headers:
            return _lines(self.all_headers(request_id))
        return b"%bcontent-length: %d\r\nx-request-id: %b\r\n" % (
            _default_lines(self.media_type, self.content_encoding),
            len(self.body),
            request_id.encode(),
        )

    @property
    def _default_headers(self) -> HeaderList:
        return _default_headers(self.media_type, self.content_encoding)


def json_response(
    body: Mapping[str, Any], status: int, media_type: str, headers: Mapping[str, str] | None = None
) -> PreparedResponse:
    """Return a response with a JSON body."""
    response = PreparedResponse(orjson.dumps(body), status, media_type)
    if headers:
        response.headers = encode_headers(headers)
    return response


def page_response(page: Page) -> PreparedResponse:
    """Return a response with a page."""
    response = PreparedResponse(page.read(), 200, HTML)
    response.headers = encode_headers(page.headers)
    return response


def encode_headers(headers: Mapping[str, str]) -> HeaderList:
    """Return headers as bytes."""
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def cache_headers(max_age_seconds: int) -> HeaderList:
    """Return the headers of a result that a client may cache; none if it may not.

    Args:
        max_age_seconds: The time for which the client may use the result, in seconds, or 0.
    """
    if max_age_seconds == 0:
        return ()
    # The result also depends on the role of the API key. A client must not use it for another key.
    vary = "accept, accept-encoding, authorization, segmentql-read"
    return encode_headers({"cache-control": f"private, max-age={max_age_seconds}", "vary": vary})


def retry_after(seconds: int) -> HeaderList:
    """Return the header that says after how many seconds the client should retry the request."""
    return encode_headers({"retry-after": str(seconds)})


@lru_cache(maxsize=32)
def _default_headers(media_type: str, encoding: ContentEncoding | None) -> HeaderList:
    headers = [(b"content-type", f"{media_type}; charset=utf-8".encode()), *_SAFE_HEADERS]
    if encoding is not None:
        headers.append((b"vary", b"accept-encoding"))
        if encoding is not ContentEncoding.IDENTITY:
            headers.append((b"content-encoding", encoding.encode()))
    return headers


@lru_cache(maxsize=32)
def _default_lines(media_type: str, encoding: ContentEncoding | None) -> bytes:
    return _lines(_default_headers(media_type, encoding))


def _lines(headers: HeaderList) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)
