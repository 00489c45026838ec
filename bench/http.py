"""A fast HTTP/1.1 client: a keep-alive connection that sends one request at a time."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson

ResponseHandler = Callable[["Connection", int, bytes], None]


class Connection(asyncio.Protocol):
    """A connection that sends POST requests and passes each response to a function.

    It calls `on_response(connection, status, body)` for a response, and `on_lost(connection)` when
    it is closed.
    """

    def __init__(
        self,
        path: str,
        on_response: ResponseHandler,
        on_lost: Callable[["Connection"], None],
        *,
        token: str = "",
    ) -> None:
        self.subject: Any = None
        """The subject of the request in flight, set by the caller."""
        self.scheduled_at = 0.0
        """The monotonic time at which that request was due, set by the caller."""
        self._on_response = on_response
        self._on_lost = on_lost
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n"
            f"{authorization}Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_lost(self)

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
        if length_at < 0:  # a chunked response, which no measured server sends
            self.close()
            return
        length = int(head[length_at + 15 :].split(b"\r\n", 1)[0])
        body = self._buffer[end + 4 : end + 4 + length]
        if len(body) < length:
            return
        self._buffer = b""
        self._on_response(self, int(head[9:12]), body)


class GraphQLClient:
    """A GraphQL client with one connection, which sends one request at a time."""

    def __init__(self) -> None:
        self._response: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.connection = Connection("/graphql", self._on_response, self._on_lost)

    async def __call__(self, query: str, **variables: Any) -> Any:
        """Send a query and return the `data` of the response.

        Raises:
            ConnectionError: The server closed the connection.
        """
        self._response = asyncio.get_running_loop().create_future()
        self.connection.send(json.dumps({"query": query, "variables": variables}).encode())
        return orjson.loads(await self._response)["data"]

    def _on_response(self, _connection: Connection, _status: int, body: bytes) -> None:
        self._response.set_result(body)

    def _on_lost(self, _connection: Connection) -> None:
        if not self._response.done():
            self._response.set_exception(ConnectionError("the server closed a connection"))


@asynccontextmanager
async def graphql_client(port: int) -> AsyncIterator[GraphQLClient]:
    """Connect a GraphQL client to a port of this machine."""
    client = GraphQLClient()
    await asyncio.get_running_loop().create_connection(lambda: client.connection, "127.0.0.1", port)
    try:
        yield client
    finally:
        client.connection.close()
