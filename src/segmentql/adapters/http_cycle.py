"""The request cycle of `LimitedProtocol`, which can write a whole response at once."""

from typing import Any, Final

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from segmentql.adapters.http import SAFE_HEADERS

CLOSE_HEADER_LINES: Final = b"connection: close\r\n\r\n"
END_OF_HEADERS: Final = b"\r\n"


class RequestCycle(RequestResponseCycle):
    """A request of a connection and its response.

    uvicorn's `send` checks each header of each response by regular expressions. That takes longer
    than executing a small query.
    """

    def respond(self, status: int, header_lines: bytes, body: bytes) -> bool:
        """Write a whole response, if the client has read most of the data before.

        Args:
            status: The HTTP status.
            header_lines: The headers, each with its line end. They must include Content-Length,
                unless the status is 304, and must not include Connection. They are not checked.
            body: The body. It must be empty for a HEAD request.

        Returns:
            Whether the response was written, or discarded because the client has disconnected. If
            False, `send` must be used, which waits until the client reads.
        """
        if self.response_started or self.flow.write_paused:
            return False
        if self.disconnected:
            return True
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(
            b"".join(
                (
                    STATUS_LINE[status],
                    _default_headers.header_lines(self.default_headers),
                    header_lines,
                    END_OF_HEADERS if self.keep_alive else CLOSE_HEADER_LINES,
                    body,
                )
            )
        )
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True


class _DefaultHeaders:
    """The lines of uvicorn's default headers. uvicorn replaces their list once per second."""

    def __init__(self) -> None:
        self._headers: Any = None
        self._lines = b""

    def header_lines(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        if headers is not self._headers:
            self._headers = headers
            self._lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        return self._lines


_default_headers: Final = _DefaultHeaders()


def closing_error(status: int, message: str, extensions: dict[str, object] | None) -> bytes:
    """Return the last response of a connection: an error in the form of a GraphQL error."""
    error = {"message": message, "extensions": extensions or {"code": "BAD_REQUEST"}}
    body = orjson.dumps({"errors": [error]})
    headers = {
        **SAFE_HEADERS,
        "content-type": "application/json; charset=utf-8",
        "content-length": str(len(body)),
        "connection": "close",
        **({"retry-after": "1"} if status == 503 else {}),  # noqa: PLR2004 - an HTTP status
    }
    lines = [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
    return b"".join([STATUS_LINE[status], *lines, b"\r\n", body])
