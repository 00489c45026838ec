"""The limit of a response's size in bytes. The bytes are counted while the response is built.

The count is a lower bound: it has the exact bytes of names and punctuation, the characters of each
text, and the shortest length of every other value. So no response within the limit is rejected, and
a response beyond it is detected before its memory is a multiple of the limit. The exact size is
known when the response is serialized, so serialization checks it as well.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from graphql import GraphQLError, GraphQLLeafType
from segmentql.graphql.cost.scheduling import TIME_SLICE_SECONDS, yield_to_event_loop
from segmentql.graphql.types.errors import Code

NULL_BYTES: Final = 4
FIELD_BYTES: Final = 4
"""The bytes of a field besides its name and value: two quotes, a colon and a comma."""

OBJECT_BYTES: Final = 1
LIST_BYTES: Final = 1
"""The bytes of an object or list: two brackets, less the comma after the last field or item."""

TEXT_BYTES: Final = 2
SCALAR_BYTES: Final = {"DateTime": 29, "Boolean": 4}
"""The bytes of a scalar's shortest value, if that is longer than one byte."""

SLICE_THRESHOLD_BYTES: Final = 1_048_576
"""A response of more counted bytes is serialized in slices that yield to the event loop."""

CHUNK_BYTES: Final = 65_536
"""The size of the chunks of a response. The next chunk waits until the client reads."""

PIECE_OBJECTS: Final = 100
"""The number of objects and lists that are serialized at a time."""


class ResponseTooLarge(GraphQLError):
    """The response exceeds its limit.

    Args:
        limit: The maximum number of bytes of a response.
        value: The counted number of bytes, a lower bound.
    """

    def __init__(self, limit: int, value: int) -> None:
        super().__init__(
            f"The response is larger than {limit} bytes.",
            extensions={"code": Code.LIMIT_EXCEEDED, "limit": limit, "value": value},
        )


class BoundedExecutor(StrawberryGraphQLCoreExecutionContext):
    """An executor of graphql-core that stops when the response is too large.

    The methods that it overrides are not part of graphql-core's public API.
    `tests/graphql/test_response_sizes.py` fails if they change.
    """

    def execute_field(
        self, parent_type: Any, source: Any, field_details_list: Any, path: Any, *context: Any
    ) -> Any:
        self.context_value.count_bytes(FIELD_BYTES + len(path.key))
        return super().execute_field(parent_type, source, field_details_list, path, *context)

    def complete_leaf_value(  # type: ignore[override]  # a static method there
        self, return_type: GraphQLLeafType, result: Any
    ) -> Any:
        completed = super().complete_leaf_value(return_type, result)
        self.context_value.count_bytes(
            TEXT_BYTES + len(completed) if isinstance(completed, str) else 1
        )
        return completed

    def complete_object_value(self, *details: Any) -> Any:
        self.context_value.count_bytes(OBJECT_BYTES)
        return super().complete_object_value(*details)

    def handle_field_error(self, raw_error: Exception, *details: Any) -> None:
        if isinstance(raw_error, ResponseTooLarge):
            raise raw_error  # a nullable field must not turn it into null
        super().handle_field_error(raw_error, *details)


async def serialize_in_slices(body: dict[str, Any], *, limit: int) -> list[bytes]:
    """Serialize a large response in slices and return chunks of about `CHUNK_BYTES`.

    Raises:
        ResponseTooLarge: The response has more than `limit` bytes.
    """
    chunks: list[bytes] = []
    size = 0
    chunk = bytearray()
    slice_ends = time.perf_counter() + TIME_SLICE_SECONDS
    for piece in _pieces(body):
        chunk += piece
        if len(chunk) < CHUNK_BYTES:
            continue
        size += len(chunk)
        if size > limit:
            raise ResponseTooLarge(limit, size)
        chunks.append(bytes(chunk))
        chunk.clear()
        if time.perf_counter() > slice_ends:
            await yield_to_event_loop()
            slice_ends = time.perf_counter() + TIME_SLICE_SECONDS
    chunks.append(bytes(chunk))
    if size + len(chunk) > limit:
        raise ResponseTooLarge(limit, size + len(chunk))
    return chunks


def _pieces(value: Any) -> Iterator[bytes]:
    """Yield the JSON of a value in pieces of about `PIECE_OBJECTS` objects and lists."""
    if _count(value, PIECE_OBJECTS) <= PIECE_OBJECTS:
        yield orjson.dumps(value)
    elif isinstance(value, dict):
        opening = b"{"
        for key, inner in value.items():
            yield opening + orjson.dumps(key) + b":"
            yield from _pieces(inner)
            opening = b","
        yield b"}"
    else:
        yield b"["
        separator = b""
        for items in _groups(value):
            yield separator
            if len(items) == 1:
                yield from _pieces(items[0])
            else:
                yield orjson.dumps(items)[1:-1]
            separator = b","
        yield b"]"


def _groups(items: list[Any]) -> Iterator[list[Any]]:
    """Yield groups of items with about `PIECE_OBJECTS` objects; a larger item is alone."""
    group: list[Any] = []
    size = 0
    for item in items:
        count = _count(item, PIECE_OBJECTS)
        if group and size + count > PIECE_OBJECTS:
            yield group
            group, size = [], 0
        group.append(item)
        size += count
    if group:
        yield group


def _count(value: Any, maximum: int) -> int:
    """Return the number of objects and lists in a value, itself included; stop at `maximum`."""
    if isinstance(value, dict):
        children: Iterable[Any] = value.values()
    elif isinstance(value, list):
        children = value
    else:
        return 0
    count = 1
    for child in children:
        if isinstance(child, dict | list):
            count += _count(child, maximum - count)
        if count > maximum:
            break
    return count
