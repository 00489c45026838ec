"""The response of an event stream: its head, its messages and its heartbeats."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from starlette.types import Receive, Send

from segmentql.graphql.cost.deadlines import Deadlines
from segmentql.graphql.execution.response_size import CHUNK_BYTES
from segmentql.graphql.http.stream_registry import EndReason, StreamConnection

HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would collect the messages
)

HEARTBEAT: Final = b":\n\n"
COMPLETE: Final = b"event: complete\ndata:\n\n"


class EventStreamResponse:
    """An event stream that is being sent.

    Each call returns when the client has read most of what was sent, so that at most one message is
    in memory. It raises TimeoutError if the client does not read it within the time limit.
    """

    def __init__(self, send: Send, deadlines: Deadlines) -> None:
        """Create the response.

        Args:
            send: The `send` of the ASGI application.
            deadlines: The time limits in which the client must read.
        """
        self._send = send
        self._deadlines = deadlines
        self._is_sending = False
        self.is_started = False
        self.is_only = False
        """Whether it has the result of a query or a mutation, which `complete` must follow."""
        self.is_unread = False
        """Whether the client did not read in time."""
        self.is_incomplete = False
        """Whether the last event was sent in part only, so that nothing can follow it."""

    async def start(self) -> None:
        """Send the head, and a comment so that proxies pass it on."""
        self.is_started = True
        await self._send(
            {"type": "http.response.start", "status": 200, "headers": [*HEADERS]},
        )
        await self._send_parts([HEARTBEAT])

    async def send_next(self, data: Sequence[bytes], cursor: str | None) -> None:
        """Send a result.

        Args:
            data: The JSON of the result, in chunks.
            cursor: The id of the message; None if it has none.
        """
        head = f"event: next\nid: {cursor}\ndata: " if cursor else "event: next\ndata: "
        await self._send_parts([head.encode(), *data, b"\n\n"])

    async def send_complete(self) -> None:
        """Send that the operation is complete."""
        await self._send_parts([COMPLETE])

    async def send_heartbeat(self) -> None:
        """Send a comment, unless a message is being sent."""
        if self.is_started and not self._is_sending:
            await self._send_body(HEARTBEAT)

    async def finish(self) -> None:
        """End the response."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_parts(self, parts: Sequence[bytes]) -> None:
        self._is_sending = self.is_incomplete = True
        deadline = self._deadlines.new_deadline()
        try:
            with deadline:
                if sum(map(len, parts)) <= CHUNK_BYTES:
                    await self._send_body(b"".join(parts))
                else:
                    for part in parts:
                        for start in range(0, len(part), CHUNK_BYTES):
                            await self._send_body(part[start : start + CHUNK_BYTES])
                # The server accepts the next chunk, even an empty one, when the client has read
                # most of the chunks before.
                self.is_incomplete = False
                await self._send_body(b"")
        except TimeoutError:
            self.is_unread = deadline.has_expired
            raise
        finally:
            self._is_sending = False

    async def _send_body(self, body: bytes) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": True})


@asynccontextmanager
async def keep_open(
    connection: StreamConnection,
    receive: Receive,
    response: EventStreamResponse,
    heartbeat_seconds: float,
) -> AsyncIterator[None]:
    """Send heartbeats while the block runs, and end the connection if the client disconnects."""

    async def send_heartbeats() -> None:
        while True:
            await asyncio.sleep(heartbeat_seconds)
            await response.send_heartbeat()

    async def await_disconnect() -> None:
        # Each call of `receive` lets the server read more requests of the connection, which it
        # keeps in memory. So a call waits until it returns, and heartbeats do not repeat it.
        while (await receive())["type"] != "http.disconnect":
            pass
        connection.cancel(EndReason.DISCONNECTED)

    tasks = [asyncio.create_task(send_heartbeats()), asyncio.create_task(await_disconnect())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
