"""The WebSocket protocol of uvicorn, with limits on what a client that does not read can cause.

uvicorn closes a connection after the client has read its data, for which it waits without a limit.
It answers pings even if the client does not read the answers, and it does not answer a head that
the library websockets rejects. `LimitedWebSocketProtocol` adds these limits.
"""

import asyncio
import logging
from functools import partial
from typing import Any, Final, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from segmentql.adapters.http_connections import ConnectionTable

_LOG: Final = logging.getLogger("segmentql.websockets")
_LOG.setLevel(logging.WARNING)  # uvicorn logs the URL of each WebSocket at the level INFO


class LimitedWebSocketProtocol(WebSocketsSansIOProtocol):
    """A connection that was upgraded to a WebSocket."""

    def __init__(self, *args: Any, table: ConnectionTable, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = table
        self._is_lingering = False
        self.logger = _LOG
        self.conn.debug = False  # it would log every message, API keys included
        self.peer = ""

    # Called by asyncio

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.peer = self.client[0] if self.client else ""

    def connection_lost(self, exc: Exception | None) -> None:
        self._table.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.handshake_initiated = True
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
        self._linger_if_closing()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()  # a pong answers each ping

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    # Called by the application

    async def receive(self) -> Any:
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            if self.writable.is_set() and not self.transport.is_closing():
                self.transport.resume_reading()
        return message

    async def send(self, message: Any) -> None:
        """Send a message; return when the client has read most of it."""
        if self.close_sent and message["type"] == "websocket.send":
            raise ClientDisconnected
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # otherwise uvicorn logs an error
        self._linger_if_closing()
        if message["type"] == "websocket.send":
            await self.writable.wait()

    async def run_asgi(self) -> None:
        await super().run_asgi()
        self._linger_if_closing()

    # Called by uvicorn's server and timers

    def shutdown(self) -> None:
        super().shutdown()
        self._linger_if_closing()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._linger_if_closing()

    # Called by the connection table

    def is_responding(self) -> bool:
        return True

    def expire(self) -> None:
        self.abort()

    def close(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    def _linger_if_closing(self) -> None:
        """Limit the time in which the client must read the rest, or answer the close message."""
        if not self._is_lingering and (self.close_sent or self.transport.is_closing()):
            self._is_lingering = True
            self._table.linger(self)


def limited_websocket_protocol(table: ConnectionTable) -> type[asyncio.Protocol]:
    """Return a protocol factory for `uvicorn.Config(ws=...)` that can be pickled."""
    return cast("type[asyncio.Protocol]", partial(LimitedWebSocketProtocol, table=table))
