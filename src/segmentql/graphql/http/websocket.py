"""GraphQL subscriptions over WebSocket, by the protocol graphql-transport-ws.

A WebSocket takes subscriptions only. The API key comes in the header `Authorization` of the
handshake, or else in the payload of `connection_init`, because browsers cannot send the header. It
is never in the URL, which proxies log.

Source: https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

import asyncio
import uuid
from typing import Final

import orjson
from starlette.types import Receive, Scope, Send

from segmentql.adapters.http import SINGLE_HEADERS
from segmentql.errors import ConcurrencyLimitExceeded, TimedOut, Unavailable
from segmentql.graphql.http.http_errors import (
    HttpRequestError,
    database_unavailable,
    shutting_down,
    too_many_streams,
)
from segmentql.graphql.http.origins import check_origin
from segmentql.graphql.http.request_parsing import Headers
from segmentql.graphql.http.stream_dependencies import StreamDependencies
from segmentql.graphql.http.stream_registry import (
    EndReason,
    StreamConnection,
)
from segmentql.graphql.http.websocket_channel import (
    ChannelClosed,
    ClientNotReading,
    WebSocketChannel,
)
from segmentql.graphql.http.websocket_messages import (
    SUBPROTOCOL,
    ClientMessage,
    CloseCode,
    Complete,
    ConnectionInit,
    Ping,
    ProtocolViolation,
    SocketRejected,
    Subscribe,
    parse_message,
)
from segmentql.graphql.http.websocket_operations import WebSocketOperations
from segmentql.graphql.types.error_causes import FAULT_CODES
from segmentql.principal import Principal

INIT_SECONDS: Final = 10
"""The time limit of `connection_init`, from the handshake."""

MAX_UNINITIALIZED: Final = 100
"""The maximum number of sockets of a process that have not sent a valid `connection_init` yet.
Above it, the oldest one is closed."""

_CLOSES: Final = {
    EndReason.REVOKED: (CloseCode.FORBIDDEN, "The API key is not valid any more"),
    EndReason.STOPPING: (CloseCode.SERVICE_RESTART, "The server is shutting down"),
}

_HTTP_CLOSES: Final = {401: CloseCode.FORBIDDEN, 403: CloseCode.FORBIDDEN}
"""The close codes of HTTP statuses; `TRY_AGAIN_LATER` for others."""


class GraphQLWebSockets:
    """The ASGI application of WebSockets at `/graphql`."""

    def __init__(
        self, dependencies: StreamDependencies, *, init_seconds: float = INIT_SECONDS
    ) -> None:
        """Create the application.

        Args:
            dependencies: The objects of the process.
            init_seconds: The time limit of `connection_init`.
        """
        self._dependencies = dependencies
        self._init_seconds = init_seconds
        self._uninitialized: dict[WebSocketChannel, None] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        headers = dict(scope["headers"])
        request_id = uuid.uuid4().hex
        try:
            self._check_handshake(scope, headers)
        except HttpRequestError as rejection:
            self._log(
                request_id,
                rejection.reason,
                is_fault=rejection.extensions["code"] in FAULT_CODES,
                status=rejection.status,
            )
            await _reject(send, rejection)
            return
        channel = WebSocketChannel(receive, send, self._dependencies)
        try:
            await self._serve(scope, send, channel, headers)
        except SocketRejected as rejected:
            self._log(
                request_id,
                rejected.log_reason,
                is_fault=rejected.is_fault,
                close_code=int(rejected.code),
            )
            await channel.close(rejected.code, rejected.reason)
        except ClientNotReading:
            channel.reset()
        except ChannelClosed:
            pass

    def _check_handshake(self, scope: Scope, headers: Headers) -> None:
        """Check the headers of a handshake.

        Raises:
            HttpRequestError: They are not allowed.
        """
        names = [name for name, _ in scope["headers"]]
        for name in (*SINGLE_HEADERS, b"origin"):
            if names.count(name) > 1:
                raise HttpRequestError(
                    400, f"The request has more than one {name.decode()} header."
                )
        self._dependencies.check_host(headers)
        check_origin(
            headers.get(b"origin"), headers.get(b"host"), self._dependencies.allowed_origins
        )
        if self._dependencies.registry.is_stopping:
            raise shutting_down()

    async def _serve(
        self, scope: Scope, send: Send, channel: WebSocketChannel, headers: Headers
    ) -> None:
        """Accept a socket and serve it until it is closed.

        Raises:
            SocketRejected: The server does not serve the client, or not any more.
            ClientNotReading: The client does not read.
            ChannelClosed: The client has disconnected.
        """
        if SUBPROTOCOL not in scope["subprotocols"]:
            await send({"type": "websocket.accept"})
            raise SocketRejected(
                CloseCode.SUBPROTOCOL_NOT_ACCEPTABLE, f"The subprotocol must be {SUBPROTOCOL}"
            )
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
        headers, principal = await self._initialize(channel, headers)
        registry = self._dependencies.registry
        try:
            connection = registry.connect(principal, headers.get(b"authorization"))
        except ConcurrencyLimitExceeded as error:
            rejection = too_many_streams(error.limit, is_per_key=error.is_per_key)
            raise SocketRejected.from_http(CloseCode.TRY_AGAIN_LATER, rejection) from None
        with connection:
            await channel.send({"type": "connection_ack"})
            await self._handle_messages(channel, connection, headers)
        if connection.end_reason in _CLOSES:
            await channel.close(*_CLOSES[connection.end_reason])
        elif connection.end_reason is EndReason.UNREAD:
            channel.reset()

    async def _initialize(
        self, channel: WebSocketChannel, headers: Headers
    ) -> tuple[Headers, Principal]:
        """Wait for `connection_init`; return the headers with the API key, and the principal."""
        self._uninitialized[channel] = None
        if len(self._uninitialized) > MAX_UNINITIALIZED:
            oldest = next(iter(self._uninitialized))
            del self._uninitialized[oldest]
            oldest.reset()
        try:
            async with asyncio.timeout(self._init_seconds):
                message = await _receive(channel)
                while not isinstance(message, ConnectionInit):
                    if isinstance(message, Subscribe):
                        raise ProtocolViolation(CloseCode.UNAUTHORIZED, "Unauthorized")
                    if isinstance(message, Ping):
                        await channel.send({"type": "pong"})
                    message = await _receive(channel)
                if b"authorization" not in headers and message.authorization is not None:
                    headers = {**headers, b"authorization": message.authorization}
                try:
                    return headers, await self._dependencies.authenticate(headers)
                except (Unavailable, TimedOut) as error:
                    raise database_unavailable(error) from None
        except HttpRequestError as rejection:
            code = _HTTP_CLOSES.get(rejection.status, CloseCode.TRY_AGAIN_LATER)
            raise SocketRejected.from_http(code, rejection) from None
        except TimeoutError:
            raise SocketRejected(
                CloseCode.INIT_TIMEOUT, "Connection initialisation timeout"
            ) from None
        finally:
            self._uninitialized.pop(channel, None)

    async def _handle_messages(
        self, channel: WebSocketChannel, connection: StreamConnection, headers: Headers
    ) -> None:
        """Handle the messages of a client until it disconnects.

        Raises:
            SocketRejected: The client violates the protocol, or sends too many messages.
        """
        operations = WebSocketOperations(self._dependencies, channel, connection, headers)
        key_id = connection.principal.key_id
        try:
            while True:
                message = await _receive(channel)
                if isinstance(message, Subscribe):
                    await operations.start(message.id, message.request)
                    continue
                if key_id and not self._dependencies.rate_limiter.try_acquire(key_id):
                    raise SocketRejected(CloseCode.POLICY_VIOLATION, "Too many messages")
                if isinstance(message, ConnectionInit):
                    raise ProtocolViolation(
                        CloseCode.TOO_MANY_INIT_REQUESTS, "Too many initialisation requests"
                    )
                if isinstance(message, Complete):
                    operations.complete(message.id)
                elif isinstance(message, Ping):
                    await channel.send({"type": "pong"})
        except ProtocolViolation:
            connection.set_end_reason(EndReason.INVALID)
            raise
        except SocketRejected:
            connection.set_end_reason(EndReason.RATE_LIMITED)
            raise
        except ChannelClosed:
            connection.set_end_reason(EndReason.DISCONNECTED)
        except ClientNotReading:
            connection.set_end_reason(EndReason.UNREAD)
        finally:
            await operations.end_all()

    def _log(self, request_id: str, reason: str, *, is_fault: bool, **fields: int) -> None:
        """Log a rejected handshake, or a socket that the server closes early."""
        if self._dependencies.log:
            self._dependencies.log.rejected(
                is_fault=is_fault, request_id=request_id, reason=reason, **fields
            )


async def _receive(channel: WebSocketChannel) -> ClientMessage:
    """Return the next message of a client.

    Raises:
        ChannelClosed: The client has disconnected.
        ProtocolViolation: It is not a message of the protocol.
    """
    message = await channel.receive()
    if message is None:
        raise ChannelClosed
    return parse_message(message if isinstance(message, str) else None)


async def _reject(send: Send, rejection: HttpRequestError) -> None:
    """Respond to a handshake with an HTTP error."""
    error = {"message": rejection.message, "extensions": rejection.extensions}
    body = orjson.dumps({"errors": [error]})
    headers = [
        (b"content-type", b"application/json; charset=utf-8"),
        *((name.encode(), value.encode()) for name, value in (rejection.headers or {}).items()),
    ]
    await send(
        {"type": "websocket.http.response.start", "status": rejection.status, "headers": headers}
    )
    await send({"type": "websocket.http.response.body", "body": body})
