"""ASGI middleware for request ids, headers and logs, and the reading of request bodies."""

import contextlib
import itertools
import os
import re
import secrets
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Final

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segmentql.logs import REQUEST_ID, RequestLog

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")

SAFE_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""The default headers of responses, which are private data and not pages."""


class _RequestIdSequence(Iterator[str]):
    """The request ids of this process: a random prefix and a counter, 32 hexadecimal digits."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start again with another prefix."""
        self._prefix = secrets.token_hex(10)
        self._numbers = itertools.count()

    def __next__(self) -> str:
        return f"{self._prefix}{next(self._numbers):012x}"


_request_ids: Final = _RequestIdSequence()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_request_ids.restart)


def request_id_of(client_id: bytes | None) -> str:
    """Return the request id of the client's `X-Request-Id` if it is valid, or else a new one."""
    if client_id and _REQUEST_ID.fullmatch(client_id):
        return client_id.decode()
    return next(_request_ids)


class RequestIds:
    """Adds a request id to each request, its logs and its response.

    The client's `X-Request-Id` is used if it is valid.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id: str = scope.setdefault("state", {}).setdefault(
            "request_id", request_id_of(header_value(scope["headers"], b"x-request-id"))
        )

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                if header_value(headers, b"x-request-id") is None:
                    message["headers"] = [*headers, (b"x-request-id", request_id.encode())]
            await send(message)

        token = REQUEST_ID.set(request_id)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            REQUEST_ID.reset(token)


def header_value(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the first value of a header, or None."""
    return next((value for key, value in headers if key == name), None)


class WithHeaders:
    """Adds default headers to the responses of an application."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                names = {name for name, _ in headers}
                message["headers"] = [*headers, *(h for h in self._headers if h[0] not in names)]
            await send(message)

        await self._app(scope, receive, send_with_headers)


SINGLE_HEADERS: Final = (
    b"authorization",
    b"content-type",
    b"content-length",
    b"host",
    b"x-api-key",
)
"""Headers that a request may contain only once. Servers and proxies differ in which of several
values they use, so that they would interpret a request with more differently."""

REPEATED_HEADER: Final = "The request has more than one {} header."

MAX_PATH_CHARACTERS: Final = 100
"""The maximum length of a path in the log."""


def repeated_header(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the first of `SINGLE_HEADERS` that is repeated, or None."""
    names = [name for name, _ in headers]
    return next((name.decode() for name in SINGLE_HEADERS if names.count(name) > 1), None)


class SingleHeaders:
    """Rejects requests that repeat one of `SINGLE_HEADERS`."""

    def __init__(self, app: ASGIApp, log: RequestLog) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = repeated_header(scope["headers"]) if scope["type"] == "http" else None
        if name:
            await self._reject(name, scope, send)
        else:
            await self._app(scope, receive, send)

    async def _reject(self, name: str, scope: Scope, send: Send) -> None:
        message = REPEATED_HEADER.format(name)
        self._log.rejected(
            is_fault=False,
            request_id=scope["state"]["request_id"],
            status=400,
            code="BAD_REQUEST",
            reason=message,
        )
        error = {"message": message, "extensions": {"code": "BAD_REQUEST"}}
        body = orjson.dumps({"errors": [error]})
        headers = [
            (b"content-type", b"application/json; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 400, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class LogRejections:
    """Logs the error responses, 400 and above, of the routes other than `/graphql`."""

    def __init__(self, app: ASGIApp, log: RequestLog) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_and_log(message: Message) -> None:
            status = message.get("status", 0)
            if message["type"] == "http.response.start" and status >= 400:  # noqa: PLR2004
                self._log.rejected(
                    is_fault=status >= 500,  # noqa: PLR2004
                    request_id=scope.get("state", {}).get("request_id"),
                    status=status,
                    path=scope["path"][:MAX_PATH_CHARACTERS],
                    reason=HTTPStatus(status).phrase,
                )
            await send(message)

        await self._app(scope, receive, send_and_log)


async def abort(receive: Receive) -> None:
    """Close the connection of a request at once, and discard the unread response.

    ASGI has no call for this: if the application returns early, the server waits until the client
    has read the written data. uvicorn's `receive` is a method of an object with the transport.
    Other servers, and tests without a server, close the connection later.
    """
    if reset_connection(receive):
        while (await receive())["type"] != "http.disconnect":
            pass


def reset_connection(receive: Receive) -> bool:
    """Reset the connection of a request or of a WebSocket; return whether the server allows it."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        return False
    # Without this option the kernel would keep its buffer until the client reads it.
    transport.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    transport.abort()
    return True


def limit_unacknowledged_time(receive: Receive, seconds: float) -> None:
    """Let the kernel close the connection of a request if sent data is not acknowledged in time.

    Args:
        receive: The `receive` of the request. See `abort` for the servers that allow it.
        seconds: The time limit. Linux has the option; elsewhere the kernel's limit applies.
    """
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is None or not hasattr(socket, "TCP_USER_TIMEOUT"):
        return
    with contextlib.suppress(OSError):  # the client has disconnected, or it is not a TCP socket
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))


class BodyTooLarge(Exception):
    """The body of a request is larger than the limit."""

    def __init__(self, limit: int, size: int) -> None:
        super().__init__(limit, size)
        self.limit = limit
        self.size = size
        """The declared size, or the bytes received when the limit was exceeded."""


class ClientDisconnected(Exception):
    """The client disconnected before its body was complete."""


async def read_body(receive: Receive, *, declared: int, limit: int) -> bytes:
    """Return a body of at most `limit` bytes. A larger body is not read further.

    Args:
        declared: the size by the Content-Length header, or 0 without one.

    Raises:
        BodyTooLarge: the declared or the actual size exceeds `limit`.
        ClientDisconnected: the client disconnected.
    """
    if declared > limit:
        raise BodyTooLarge(limit, declared)
    chunks: list[bytes] = []
    size = 0
    has_more = True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected("the client disconnected")
        chunk = message.get("body", b"")
        has_more = message.get("more_body", False)
        size += len(chunk)
        if size > limit:
            raise BodyTooLarge(limit, size)
        chunks.append(chunk)
    return b"".join(chunks)
