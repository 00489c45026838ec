"""The limits of events that wait for clients which do not read them."""

from contextlib import AsyncExitStack

import orjson
import pytest

from segmentql.graphql.execution.response_size import ResponseTooLarge
from segmentql.graphql.http.event_serializer import EventSerializer
from segmentql.graphql.http.response_sender import MAX_UNREAD_RESPONSES, UnreadResponsesExceeded

LIMIT = 3_000_000
LARGEST = {"data": "x" * (LIMIT - 100)}
SMALL = {"data": "x" * 1000}


async def test_unread_bytes_of_all_clients_are_limited() -> None:
    serializer = EventSerializer(LIMIT)
    async with AsyncExitStack() as unread:
        for size in (0, LIMIT - 100) * (MAX_UNREAD_RESPONSES // 2):
            chunks = await unread.enter_async_context(serializer.serialized(LARGEST, size))
            assert b"".join(chunks) == orjson.dumps(LARGEST)
        for size in (0, LIMIT - 100):
            with pytest.raises(UnreadResponsesExceeded):
                async with serializer.serialized(LARGEST, size):
                    pass
        async with serializer.serialized(SMALL, 1000):  # small events are not held back
            pass
    async with serializer.serialized(LARGEST, LIMIT - 100):
        pass


@pytest.mark.parametrize("size", [0, LIMIT])
async def test_event_beyond_the_limit_is_rejected(size: int) -> None:
    serializer = EventSerializer(LIMIT)
    with pytest.raises(ResponseTooLarge):
        async with serializer.serialized({"data": "x" * LIMIT}, size):
            pass
