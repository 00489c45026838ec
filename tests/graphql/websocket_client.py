"""A client of the protocol graphql-transport-ws for tests, which can also violate the protocol."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from tests.conftest import PATIENCE_SECONDS

SUBPROTOCOL = Subprotocol("graphql-transport-ws")


class Socket:
    """An open WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, message: Any) -> None:
        """Send an object as JSON, or text as it is."""
        await self.connection.send(
            message if isinstance(message, str) else orjson.dumps(message).decode()
        )

    async def receive(self) -> Any:
        """Return the next message."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return orjson.loads(await self.connection.recv())

    async def init(self, payload: Any = None) -> None:
        """Send `connection_init` and expect the acknowledgement."""
        await self.send({"type": "connection_init", "payload": payload})
        assert await self.receive() == {"type": "connection_ack"}

    async def subscribe(self, query: str, *, id: str = "1", **variables: Any) -> None:  # noqa: A002
        payload = {"query": query, "variables": variables}
        await self.send({"type": "subscribe", "id": id, "payload": payload})

    async def messages_until_end(self) -> list[Any]:
        """Return the messages of an operation, up to `complete` or `error`."""
        messages: list[Any] = []
        while not messages or messages[-1]["type"] == "next":
            messages.append(await self.receive())
        return messages

    async def close_code(self) -> tuple[int | None, str]:
        """Wait until the server closes the socket; return its code and its reason."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                while True:
                    await self.connection.recv()
            except ConnectionClosed as closed:
                return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (None, "")


@asynccontextmanager
async def opened(
    url: str,
    *,
    subprotocol: str | None = SUBPROTOCOL,
    origin: str | None = None,
    headers: Mapping[str, str] | None = None,
    **options: Any,
) -> AsyncIterator[Socket]:
    """Open a socket without `connection_init`."""
    async with connect(
        url,
        subprotocols=[Subprotocol(subprotocol)] if subprotocol else None,
        origin=Origin(origin) if origin else None,
        additional_headers=headers,
        compression=options.pop("compression", None),
        proxy=None,
        **options,
    ) as connection:
        yield Socket(connection)
