"""A keep-alive HTTP/1.1 connection that costs little: one request at a time, nothing optional."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

Answered = Callable[["Connection", int, bytes], None]


class Connection(asyncio.Protocol):
    """Sends a POST and hands over its answer: `answered(connection, status, body)`."""

    def __init__(self, path: str, answered: Answered, lost: Callable[["Connection"], None]) -> None:
        self.about: Any = None
        """What the request under way is about; the caller's."""
        self.intended = 0.0
        """When that request should have been sent; the caller's."""
        self._answered = answered
        self._lost = lost
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._lost(self)

    def send(self, body: bytes) -> None:
        if self._transport:
            self._transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        length_at = head.find(b"content-length:")
        if length_at < 0:  # in chunks, which no server that we measure sends
            self.close()
            return
        length = int(head[length_at + 15 :].split(b"\r\n", 1)[0])
        body = self._buffer[end + 4 : end + 4 + length]
        if len(body) < length:
            return
        self._buffer = b""
        self._answered(self, int(head[9:12]), body)


class Asker:
    """Asks GraphQL on one connection, one question after the other."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.connection = Connection("/graphql", self._answered, self._lost)

    async def __call__(self, query: str, **variables: Any) -> Any:
        """The data of the answer.

        Raises:
            ConnectionError: there is none.
        """
        self._answer = asyncio.get_running_loop().create_future()
        self.connection.send(json.dumps({"query": query, "variables": variables}).encode())
        return json.loads(await self._answer)["data"]

    def _answered(self, _connection: Connection, _status: int, body: bytes) -> None:
        self._answer.set_result(body)

    def _lost(self, _connection: Connection) -> None:
        if not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed a connection"))


@asynccontextmanager
async def asking(port: int) -> AsyncIterator[Asker]:
    """An asker of the server at a port of this machine."""
    asker = Asker()
    await asyncio.get_running_loop().create_connection(lambda: asker.connection, "127.0.0.1", port)
    try:
        yield asker
    finally:
        asker.connection.close()
