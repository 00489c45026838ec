"""The serialization of events of subscriptions, with limits of their size and their number.

An event stays in memory until its client has read it. As for ordinary responses, the bytes of all
unread events of a process are limited. The next large event beyond the limit ends its stream.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson

from segmentql import metrics
from segmentql.graphql.context import Context
from segmentql.graphql.execution.response_size import (
    CHUNK_BYTES,
    SLICE_THRESHOLD_BYTES,
    ResponseTooLarge,
    serialize_in_slices,
)
from segmentql.graphql.http.response_sender import MAX_UNREAD_RESPONSES, UnreadResponsesExceeded
from segmentql.graphql.types.error_causes import FailureCause
from segmentql.graphql.types.errors import format_response_too_large, format_unread_response


class EventSerializer:
    """A serializer of the events of one process."""

    def __init__(self, response_bytes: int) -> None:
        """Create the serializer.

        Args:
            response_bytes: The maximum size of an event, in bytes.
        """
        self._response_bytes = response_bytes
        self._unread_bytes = 0
        self._serializing = asyncio.Lock()

    @asynccontextmanager
    async def serialized(self, message: Mapping[str, Any], size: int) -> AsyncIterator[list[bytes]]:
        """Yield the JSON of a message in chunks, and count it as unread until the block ends.

        Args:
            message: The message.
            size: A lower bound of its size in bytes.

        Raises:
            ResponseTooLarge: The message exceeds its limit.
            UnreadResponsesExceeded: Too many bytes wait for other clients.
        """
        if size <= SLICE_THRESHOLD_BYTES:
            chunks = [orjson.dumps(message)]
        else:
            async with self._serializing:
                self._check_unread(size)
                chunks = await serialize_in_slices(dict(message), limit=self._response_bytes)
        exact = sum(map(len, chunks))
        if exact > self._response_bytes:
            raise ResponseTooLarge(self._response_bytes, exact)
        if exact > CHUNK_BYTES:
            self._check_unread(exact)
        self._unread_bytes += exact
        try:
            yield chunks
        finally:
            self._unread_bytes -= exact

    def _check_unread(self, size: int) -> None:
        if self._unread_bytes + size > MAX_UNREAD_RESPONSES * self._response_bytes:
            raise UnreadResponsesExceeded


def unsendable_errors(
    reason: ResponseTooLarge | UnreadResponsesExceeded, context: Context
) -> Sequence[dict[str, Any]]:
    """Return the errors that the client gets instead of an event; count them, note the cause."""
    metrics.REQUESTS_REJECTED.labels("size").inc()
    is_mutation = context.is_mutation
    if isinstance(reason, ResponseTooLarge):
        error = format_response_too_large(reason, is_mutation=is_mutation, is_complete=True)
    else:
        error = format_unread_response(is_mutation=is_mutation)
    context.cause = FailureCause(error["extensions"]["code"], error["message"])
    return [error]
