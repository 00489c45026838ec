"""The sending side of a WebSocket: one message at a time, within a time limit."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from starlette.types import Receive, Send

from segmentql import metrics
from segmentql.adapters.http import reset_connection
from segmentql.graphql.http.stream_services import StreamServices

CLOSE_SECONDS: Final = 2
"""The time in which the close message must be accepted, before the connection is reset."""

MAX_REASON_BYTES: Final = 123
"""The maximum length of a close reason by RFC 6455."""


class ClientNotReading(Exception):
    """The client did not read a message within the time limit."""


class ChannelClosed(Exception):
    """The socket is closed."""


class WebSocketChannel:
    """An accepted WebSocket."""

    def __init__(self, receive: Receive, send: Send, services: StreamServices) -> None:
        self._receive = receive
        self._send = send
        self._services = services
        self._lock = asyncio.Lock()
        self._is_closed = False

    async def receive(self) -> str | bytes | None:
        """Return the next message, or None if the client has disconnected."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            self._is_closed = True
            return None
        text: str | None = message.get("text")
        return message.get("bytes") if text is None else text

    async def send(self, message: Mapping[str, Any], size: int = 0) -> None:
        """Send a message; return when the client has read most of it.

        Args:
            message: The message.
            size: A lower bound of its size in bytes.

        Raises:
            ChannelClosed: The socket is closed.
            ClientNotReading: The client does not read.
            ResponseTooLarge: The message exceeds the limit of a response.
            UnreadResponsesExceeded: Too many bytes wait for other clients.
        """
        async with self._services.serializer.serialized(message, size) as chunks:
            text = b"".join(chunks).decode()
            # With a lock, the messages of several operations do not add up in the server's buffer.
            async with self._lock:
                if self._is_closed:
                    raise ChannelClosed
                deadline = self._services.send_deadlines.new_deadline()
                try:
                    with deadline:
                        await self._send({"type": "websocket.send", "text": text})
                except TimeoutError:
                    if not deadline.has_expired:
                        raise
                    metrics.REQUESTS_REJECTED.labels("send").inc()
                    raise ClientNotReading from None
                except OSError:  # by the ASGI specification
                    raise ChannelClosed from None

    async def close(self, code: int, reason: str) -> None:
        """Close the socket, or reset its connection if the client does not read."""
        if self._is_closed:
            return
        self._is_closed = True
        reason = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except TimeoutError:
            self.reset()
        except OSError:  # the client has disconnected
            pass

    def reset(self) -> None:
        """Reset the connection at once."""
        self._is_closed = True
        reset_connection(self._receive)
