"""The sending of responses, with limits of their size, their number and their time.

A response stays in memory until the client reads it. So it is sent in chunks, each after the client
has read most of the chunk before, and the connection is closed at a time limit. The bytes of all
unread responses are limited; the next large response beyond the limit is rejected.
"""

import asyncio
from typing import Final

from starlette.types import Receive, Scope, Send

from segmentql import metrics
from segmentql.adapters.http import abort
from segmentql.adapters.http_cycle import RequestCycle
from segmentql.graphql.cost.deadlines import Deadlines
from segmentql.graphql.execution.executor import ExecutionResponse
from segmentql.graphql.execution.response_size import (
    CHUNK_BYTES,
    SLICE_THRESHOLD_BYTES,
    ResponseTooLarge,
    serialize_in_slices,
)
from segmentql.graphql.http.compression import MIN_BYTES, ResponseCompressor
from segmentql.graphql.http.responses import PreparedResponse, json_response
from segmentql.logs import RequestLog

MAX_UNREAD_RESPONSES: Final = 8
"""The limit of unread bytes in one process, as a multiple of the largest response."""


class UnreadResponsesExceeded(Exception):
    """Too many bytes wait for clients that do not read their responses."""


class ResponseSender:
    """A sender that serializes and sends the responses of one process."""

    def __init__(
        self,
        *,
        response_bytes: int,
        send_seconds: float,
        compressor: ResponseCompressor | None,
        log: RequestLog | None,
    ) -> None:
        """Create the sender.

        Args:
            response_bytes: The maximum size of a response before its compression, in bytes.
            send_seconds: The time limit in which the client must read a response.
            compressor: The compressor of responses; None if they are not compressed.
            log: The log of requests.
        """
        self._response_bytes = response_bytes
        self._deadlines = Deadlines(send_seconds)
        self._compressor = compressor
        self._log = log
        self._unread_bytes = 0
        self._serializing = asyncio.Lock()

    async def prepare(
        self, response: ExecutionResponse, status: int, media_type: str
    ) -> PreparedResponse:
        """Serialize a response. A large one is serialized in slices, one at a time.

        Raises:
            ResponseTooLarge: The response exceeds its limit.
            UnreadResponsesExceeded: Too many bytes wait for other clients.
        """
        if response.size <= SLICE_THRESHOLD_BYTES:
            prepared = json_response(response.body, status, media_type)
            if len(prepared.body) > self._response_bytes:
                raise ResponseTooLarge(self._response_bytes, len(prepared.body))
            return prepared
        async with self._serializing:
            if self._unread_bytes + response.size > MAX_UNREAD_RESPONSES * self._response_bytes:
                raise UnreadResponsesExceeded
            chunks = await serialize_in_slices(response.body, limit=self._response_bytes)
        return PreparedResponse(b"", status, media_type, chunks=chunks)

    async def send(
        self, response: PreparedResponse, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Send a response. Close the connection if the client does not read it in time."""
        request_id: str = scope["state"]["request_id"]
        if self._compressor is not None and response.size >= MIN_BYTES:
            response = await self._compress(response, self._compressor, scope)
        if _write_at_once(response, request_id, scope, send):
            return
        size = response.size
        self._unread_bytes += size
        deadline = self._deadlines.new_deadline()
        try:
            with deadline:
                await send_in_chunks(response, request_id, send)
        except TimeoutError:
            if not deadline.has_expired:
                raise
            metrics.REQUESTS_REJECTED.labels("send").inc()
            if self._log:
                self._log.unread(
                    request_id=request_id,
                    size=size,
                    seconds=self._deadlines.seconds,
                )
            await abort(receive)
        finally:
            self._unread_bytes -= size

    async def _compress(
        self, response: PreparedResponse, compressor: ResponseCompressor, scope: Scope
    ) -> PreparedResponse:
        """Compress a response if the client accepts that. Until then its bytes are unread."""
        size = response.size
        self._unread_bytes += size
        try:
            return await compressor.compress(response, scope["headers"])
        finally:
            self._unread_bytes -= size


def _write_at_once(response: PreparedResponse, request_id: str, scope: Scope, send: Send) -> bool:
    """Write a small response, if the server can do that; return whether it was written."""
    if (
        response.chunks
        or len(response.body) > CHUNK_BYTES
        or scope["method"] == "HEAD"
        or (response.headers and any(name == b"connection" for name, _ in response.headers))
    ):
        return False
    # `send` is a method of the server's cycle, unless middleware or a test has wrapped it.
    cycle = getattr(send, "__self__", None)
    return isinstance(cycle, RequestCycle) and cycle.respond(
        response.status, response.header_lines(request_id), response.body
    )


async def send_in_chunks(response: PreparedResponse, request_id: str, send: Send) -> None:
    """Send the head and the body of a response in chunks.

    The server accepts a chunk when the client has read most of the chunks before. The empty chunk
    at the end is accepted when less than a chunk of the body is unread.
    """
    await send(
        {
            "type": "http.response.start",
            "status": response.status,
            "headers": response.all_headers(request_id),
        }
    )
    if response.size <= CHUNK_BYTES and not response.chunks:
        await send({"type": "http.response.body", "body": response.body})
        return
    for chunk in response.chunks or [response.body]:
        for start in range(0, len(chunk), CHUNK_BYTES):
            part = chunk[start : start + CHUNK_BYTES]
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
