"""The client of a request that waits: whether it is still connected and its API key still valid."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import Receive

from segmentql.principal import Principal


class ClientConnection:
    """The connection of a request whose body has been read. A context manager for the request."""

    __slots__ = ("_authenticate", "_authorization", "_disconnected", "_receive", "_watch")

    def __init__(
        self,
        receive: Receive,
        *,
        authenticate: Callable[[bytes | None], Awaitable[Principal]] | None,
        authorization: bytes | None,
    ) -> None:
        """Create the connection.

        Args:
            receive: The `receive` of the ASGI application.
            authenticate: The function that authenticates requests; None if no API key is required.
            authorization: The `Authorization` header.
        """
        self._receive = receive
        self._authenticate = authenticate
        self._authorization = authorization
        self._disconnected: asyncio.Event | None = None
        self._watch: asyncio.Task[None] | None = None

    def disconnected(self) -> asyncio.Event:
        """Return the event that is set when the client disconnects.

        The first call starts a task, which ends with the request.
        """
        if self._disconnected is None:
            self._disconnected = asyncio.Event()
            self._watch = asyncio.create_task(self._wait_for_disconnect(self._disconnected))
        return self._disconnected

    async def check_key(self) -> None:
        """Check the API key again. Call it after a wait, in which the key may have been revoked.

        Raises:
            Unauthenticated: The key is not valid any more.
            Unavailable, TimedOut: The database cannot be read.
        """
        if self._authenticate is not None:
            await self._authenticate(self._authorization)

    def __enter__(self) -> "ClientConnection":
        return self

    def __exit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.cancel()

    async def _wait_for_disconnect(self, disconnected: asyncio.Event) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        disconnected.set()
