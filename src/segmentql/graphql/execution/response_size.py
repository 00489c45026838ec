"""The bound on a response's bytes, which are counted while the response is built.

The count is a lower bound: keys and punctuation exactly, each text as its characters, every other
value as the shortest of its type. So a response that is within the limit is never rejected, and one
beyond it is noticed before it needs a multiple of the limit. The exact number is known when the
response is serialized, which is why that counts as well.
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
"""The quotes of a field's name, the colon and the comma."""

OBJECT_BYTES: Final = 1
LIST_BYTES: Final = 1
"""Two brackets without the comma that the last field or item does not have."""

TEXT_BYTES: Final = 2
SCALAR_BYTES: Final = {"DateTime": 29, "Boolean": 4}
"""The shortest value of a scalar, if that is more than one byte."""

SLICE_THRESHOLD_BYTES: Final = 1_048_576
"""A response of more counted bytes is serialized in slices, between which others have a turn."""

CHUNK_BYTES: Final = 65_536
"""A response is sent in chunks of this size. While the client does not read, the next one waits."""

PIECE_OBJECTS: Final = 100
"""Objects and lists that are serialized at a time."""


class ResponseTooLarge(GraphQLError):
    """The response has more bytes than the service sends.

    Args:
        limit: the most that a response may have.
        value: how many it has at least: as many as were counted.
    """

    def __init__(self, limit: int, value: int) -> None:
        super().__init__(
            f"The response is larger than {limit} bytes.",
            extensions={"code": Code.LIMIT_EXCEEDED, "limit": limit, "value": value},
        )


class BoundedExecutor(StrawberryGraphQLCoreExecutionContext):
    """Graphql-core's executor, which stops when the response is too large.

    The methods that it overrides are not part of graphql-core's public API;
    `tests/graphql/test_response_sizes.py` finds out if they change.
    """

    def execute_field(
        self, parent_type: Any, source: Any, field_details_list: Any, path: Any, *context: Any
    ) -> Any:
        self.context_value.count_bytes(FIELD_BYTES + len(path.key))
        return super().execute_field(parent_type, source, field_details_list, path, *context)

    def complete_leaf_value(  # type: ignore[override]  # static there
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
            raise raw_error  # a nullable field must not absorb it
        super().handle_field_error(raw_error, *details)


async def serialize_in_slices(body: dict[str, Any], *, limit: int) -> list[bytes]:
    """Serialize a large response in slices; return chunks of about `CHUNK_BYTES`.

    Raises:
        ResponseTooLarge: it has more than `limit` bytes.
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
    """The JSON of a value in pieces, each of about `PIECE_OBJECTS` objects and lists."""
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
    """Split a list into parts of about `PIECE_OBJECTS` objects; a larger item is alone."""
    group: list[Any] = []
    size = 0
    for item in items:
        found = _count(item, PIECE_OBJECTS)
        if group and size + found > PIECE_OBJECTS:
            yield group
            group, size = [], 0
        group.append(item)
        size += found
    if group:
        yield group


def _count(value: Any, most: int) -> int:
    """The objects and lists in a value, itself included; counted no further than `most`."""
    if isinstance(value, dict):
        inside: Iterable[Any] = value.values()
    elif isinstance(value, list):
        inside = value
    else:
        return 0
    count = 1
    for inner in inside:
        if isinstance(inner, dict | list):
            count += _count(inner, most - count)
        if count > most:
            break
    return count
