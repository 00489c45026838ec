"""Responses on their way to clients: their bytes, their number and their time are bounded.

A client that does not read its response keeps it in memory. So a response is handed to the server
in chunks, each when the client has read most of the one before, and the connection is closed if
that takes too long. Large responses that wait for their clients are few; the next one is rejected.
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
"""Responses of the largest size that may wait for their clients at a time, in one process."""


class UnsentResponsesExceeded(Exception):
    """Clients do not read their responses, and there is no room for another one."""


@dataclass(frozen=True, slots=True)
class PreparedResponse:
    """A response that is ready to be sent."""

    head: Response
    """The whole response if there are no chunks."""
    chunks: Sequence[bytes] = ()

    @property
    def size(self) -> int:
        """The bytes of the body."""
        return sum(map(len, self.chunks)) if self.chunks else len(self.head.body)


class ResponseSender:
    """Serializes and sends the responses of one process."""

    def __init__(self, *, response_bytes: int, send_seconds: float, log: RequestLog | None) -> None:
        """Make it.

        Args:
            response_bytes: the most that one response may have.
            send_seconds: how long a client may take to read one.
        """
        self._response_bytes = response_bytes
        self._deadlines = Deadlines(send_seconds)
        self._log = log
        self._unsent_bytes = 0
        self._serializing = asyncio.Lock()

    async def prepare(
        self, answer: ExecutionResponse, status: int, media_type: str
    ) -> PreparedResponse:
        """Serialize an answer: a large one in slices, one large one at a time.

        Raises:
            ResponseTooLarge: it has more bytes than a response may have.
            TooMuchUnsent: clients do not read their responses.
        """
        if answer.size <= SLICE_THRESHOLD_BYTES:
            head = json_response(answer.body, status, media_type)
            if len(head.body) > self._response_bytes:
                raise ResponseTooLarge(self._response_bytes, len(head.body))
            return PreparedResponse(head)
        async with self._serializing:
            if self._unsent_bytes + answer.size > UNSENT_RESPONSES * self._response_bytes:
                raise UnsentResponsesExceeded
            chunks = await serialize_in_slices(answer.body, limit=self._response_bytes)
        head = Response(
            status_code=status,
            media_type=f"{media_type}; charset=utf-8",
            headers={"content-length": str(sum(map(len, chunks)))},
        )
        return PreparedResponse(head, chunks)

    async def send(
        self, response: PreparedResponse, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Send a response; close the connection if the client does not read it in time."""
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
            if not deadline.has_passed:
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
    """Send a head and a body.

    The server takes a chunk when the client has read most of those before. The empty one at the end
    makes this wait for the client until only the end of the body, less than a chunk, is unread.
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
