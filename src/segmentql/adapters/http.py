"""HTTP below GraphQL, as pure ASGI: request ids, headers, rejections, and bodies too large."""

import re
import socket
import struct
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import orjson
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segmentql.logs import RequestLog

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")

SAFE_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Of every answer that does not say otherwise: it is data of one caller, and no page."""


class RequestIds:
    """Gives every request an id, the caller's own where it has a decent one, and says it back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((v for k, v in scope["headers"] if k == b"x-request-id"), b"")
        request_id = given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, send_with_id)


class WithHeaders:
    """Adds the same headers to every answer of an application that does not have them."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message.get("headers", ())
                names = {name for name, _ in given}
                message["headers"] = [*given, *(h for h in self._headers if h[0] not in names)]
            await send(message)

        await self._app(scope, receive, send_with_headers)


SINGLE_HEADERS: Final = (b"authorization", b"content-type", b"content-length")
"""Headers of which a request may have one line. Servers and proxies differ in which of several
lines they take, so a request with more may mean another thing to each."""

MAX_PATH_CHARACTERS: Final = 100
"""Of a path in the log."""


class SingleHeaders:
    """Rejects requests that repeat one of `SINGLE_HEADERS`."""

    def __init__(self, app: ASGIApp, log: RequestLog) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            names = [name for name, _ in scope["headers"]]
            if len(set(names)) < len(names):  # seldom; then it is looked at which
                repeated = [name for name in SINGLE_HEADERS if names.count(name) > 1]
                if repeated:
                    await self._reject(repeated[0].decode(), scope, send)
                    return
        await self._app(scope, receive, send)

    async def _reject(self, name: str, scope: Scope, send: Send) -> None:
        message = f"The request has more than one {name} header."
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
    """Writes a line for every answer that is a client's or a server's error, with its path."""

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
    """Close the connection of a request at once, with what is not sent yet.

    ASGI has no way to do this: an application that returns early lets the server wait until the
    client has read what was written. uvicorn's `receive` belongs to an object that has the
    transport. Other servers, and tests without one, close the connection in their own time.
    """
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        return
    # Without this the kernel would keep what it has until the client reads it.
    transport.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass


class BodyTooLarge(Exception):
    """A request's body has more bytes than the service takes."""

    def __init__(self, limit: int, size: int) -> None:
        super().__init__(limit, size)
        self.limit = limit
        self.size = size
        """As far as it is known: what was announced, or what had come when it was too much."""


class ClientDisconnected(Exception):
    """The client went away in the middle of its body."""


async def read_body(receive: Receive, *, announced: int, limit: int) -> bytes:
    """Read a body of at most `limit` bytes, without reading more of a larger one.

    Raises:
        BodyTooLarge: by its announced or its actual length.
        BodyCutShort: the client went away.
    """
    if announced > limit:
        raise BodyTooLarge(limit, announced)
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected("the client went away")
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size > limit:
            raise BodyTooLarge(limit, size)
        chunks.append(chunk)
    return b"".join(chunks)
