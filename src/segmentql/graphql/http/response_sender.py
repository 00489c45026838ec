"""The sending of responses, with limits of their size, their number and their time.

A response stays in memory until the client reads it. So it is sent in chunks, each after the client
has read most of the chunk before, and the connection is closed at a time limit. The bytes of all
unread responses are limited; the next large response beyond the limit is rejected.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from segmentql import metrics
from segmentql.adapters.http import abort
from segmentql.graphql.cost.deadlines import Deadlines
from segmentql.graphql.execution.executor import ExecutionResponse
from segmentql.graphql.execution.response_size import (
    CHUNK_BYTES,
    SLICE_THRESHOLD_BYTES,
    ResponseTooLarge,
    serialize_in_slices,
)
from segmentql.graphql.http.http_errors import json_response
from segmentql.logs import RequestLog

UNSENT_RESPONSES: Final = 8
"""The limit of unread bytes in one process, as a multiple of the largest response."""


class UnsentResponsesExceeded(Exception):
    """Too many bytes wait for clients that do not read their responses."""


@dataclass(frozen=True, slots=True)
class PreparedResponse:
    """A response that is ready to be sent."""

    head: Response
    """The status and headers, and also the body if there are no chunks."""
    chunks: Sequence[bytes] = ()
    """The body of a large response."""

    @property
    def size(self) -> int:
        """The size of the body in bytes."""
        return sum(map(len, self.chunks)) if self.chunks else len(self.head.body)


class ResponseSender:
    """A sender that serializes and sends the responses of one process."""

    def __init__(self, *, response_bytes: int, send_seconds: float, log: RequestLog | None) -> None:
        """Create the sender.

        Args:
            response_bytes: The maximum size of a response, in bytes.
            send_seconds: The time limit in which the client must read a response.
            log: The log of requests.
        """
        self._response_bytes = response_bytes
        self._deadlines = Deadlines(send_seconds)
        self._log = log
        self._unsent_bytes = 0
        self._serializing = asyncio.Lock()

    async def prepare(
        self, response: ExecutionResponse, status: int, media_type: str
    ) -> PreparedResponse:
        """Serialize a response. A large one is serialized in slices, one at a time.

        Raises:
            ResponseTooLarge: The response exceeds its limit.
            UnsentResponsesExceeded: Too many bytes wait for other clients.
        """
        if response.size <= SLICE_THRESHOLD_BYTES:
            head = json_response(response.body, status, media_type)
            if len(head.body) > self._response_bytes:
                raise ResponseTooLarge(self._response_bytes, len(head.body))
            return PreparedResponse(head)
        async with self._serializing:
            if self._unsent_bytes + response.size > UNSENT_RESPONSES * self._response_bytes:
                raise UnsentResponsesExceeded
            chunks = await serialize_in_slices(response.body, limit=self._response_bytes)
        head = Response(
            status_code=status,
            media_type=f"{media_type}; charset=utf-8",
            headers={"content-length": str(sum(map(len, chunks)))},
        )
        return PreparedResponse(head, chunks)

    async def send(
        self, response: PreparedResponse, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Send a response. Close the connection if the client does not read it in time."""
        size = response.size
        self._unsent_bytes += size
        deadline = self._deadlines.new_deadline()
        try:
            with deadline:
                if size <= CHUNK_BYTES and not response.chunks:
                    await response.head(scope, receive, send)
                else:
                    await _send_in_chunks(response, send)
        except TimeoutError:
            if not deadline.has_expired:
                raise
            metrics.REQUESTS_REJECTED.labels("send").inc()
            if self._log:
                self._log.unread(
                    request_id=scope["state"]["request_id"],
                    size=size,
                    seconds=self._deadlines.seconds,
                )
            await abort(receive)
        finally:
            self._unsent_bytes -= size


async def _send_in_chunks(response: PreparedResponse, send: Send) -> None:
    """Send the head and the body of a response in chunks.

    The server accepts a chunk when the client has read most of the chunks before. The empty chunk
    at the end is accepted when less than a chunk of the body is unread.
    """
    head = response.head
    await send(
        {"type": "http.response.start", "status": head.status_code, "headers": head.raw_headers}
    )
    for chunk in response.chunks or [bytes(head.body)]:
        for start in range(0, len(chunk), CHUNK_BYTES):
            part = chunk[start : start + CHUNK_BYTES]
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
