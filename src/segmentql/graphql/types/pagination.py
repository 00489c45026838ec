"""Relay connections with keyset cursors: the cost of a page does not depend on its position.

A cursor is the sort key of its row. If rows are inserted or deleted between two pages, no other row
is repeated or skipped. A cursor is opaque. It has a checksum of the sort key, the list and the
list's filters, so a cursor of another list and a damaged cursor are rejected.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Generic, TypeAlias, TypeVar

import orjson
import strawberry

from segmentql import validators
from segmentql.graphql.types.errors import bad_request, limit_exceeded

T = TypeVar("T")

SortKey: TypeAlias = tuple[int | str, ...]
KeyRule: TypeAlias = Callable[[int | str], bool]
"""A function that returns whether a value is valid as one part of a sort key.

The checksum detects damage, but not a forged cursor."""

Filter: TypeAlias = int | str | None

CURSOR_ALLOWED: Final = "a cursor from an earlier page of the same list, with the same filters"
_CHECKSUM_BYTES: Final = 6
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


First: TypeAlias = Annotated[
    int | None, strawberry.argument(description="The page size, from 1 to 100.")
]
After: TypeAlias = Annotated[
    str | None,
    strawberry.argument(
        description="The cursor after which the page begins, from this list with the same filters."
    ),
]
"""The types of the arguments of every connection, which `parse_page_arguments` parses."""


@strawberry.type(description="The position of a page in its list.")
class PageInfo:
    has_next_page: bool = strawberry.field(
        description="Whether the list continues after this page."
    )
    has_previous_page: bool = strawberry.field(
        description="Whether the request for this page had the argument `after`."
    )
    sort_keys: strawberry.Private["Sequence[SortKey]"]
    page_request: strawberry.Private["PageRequest"]

    # Resolvers encode the cursors, so that only selected cursors are encoded.

    @strawberry.field(description="The cursor of the first node.")
    def start_cursor(self) -> str | None:
        return self.page_request.cursor(self.sort_keys[0]) if self.sort_keys else None

    @strawberry.field(
        description="The cursor of the last node. Send it as `after` to get the next page."
    )
    def end_cursor(self) -> str | None:
        return self.page_request.cursor(self.sort_keys[-1]) if self.sort_keys else None


def _cursor(root: "Edge[Any]") -> str:
    return root.page_request.cursor(root.sort_key)


@strawberry.type(description="A node and its cursor.")
class Edge(Generic[T]):
    cursor: str = strawberry.field(
        resolver=_cursor, description="The position of the node in the list, as an opaque string."
    )
    node: T = strawberry.field(description="The node.")
    sort_key: strawberry.Private[SortKey]
    page_request: strawberry.Private["PageRequest"]


@strawberry.type(description="A page of a list.")
class Connection(Generic[T]):
    nodes: list[T] = strawberry.field(description="The nodes of this page.")
    sort_keys: strawberry.Private[Sequence[SortKey]]
    has_more: strawberry.Private[bool]
    page_request: strawberry.Private["PageRequest"]

    @strawberry.field(description="The nodes of this page with their cursors.")
    def edges(self) -> list[Edge[T]]:
        return [
            Edge(sort_key=key, page_request=self.page_request, node=node)
            for key, node in zip(self.sort_keys, self.nodes, strict=True)
        ]

    @strawberry.field(description="The position of this page in the list.")
    def page_info(self) -> PageInfo:
        return PageInfo(
            has_next_page=self.has_more,
            has_previous_page=self.page_request.after is not None,
            sort_keys=self.sort_keys,
            page_request=self.page_request,
        )


@dataclass(frozen=True)
class PageRequest:
    """A request for one page of a list."""

    list_name: str
    """The short name of the list."""

    filters: tuple[Filter, ...]
    """The values that select the rows of the list."""
    first: int
    """The maximum number of rows on the page."""
    after: SortKey | None
    """The sort key after which the page begins; None for the first page."""

    def cursor(self, key: SortKey) -> str:
        """Return the cursor of a row. It is valid only for this list with these filters."""
        return _encode_cursor(self.list_name, self.filters, orjson.dumps(key))

    def page(self, records: Sequence[T], key: Callable[[T], SortKey]) -> Connection[T]:
        """Build the page from up to `first + 1` records.

        If there is one record more than `first`, another page follows.
        """
        nodes = list(records[: self.first])
        return Connection(
            nodes=nodes,
            sort_keys=[key(node) for node in nodes],
            has_more=len(records) > self.first,
            page_request=self,
        )


def parse_page_arguments(
    list_name: str,
    key_rules: tuple[KeyRule, ...],
    first: int | None,
    after: str | None,
    *,
    filters: tuple[Filter, ...] = (),
    default: int = 50,
) -> PageRequest:
    """Parse the arguments of a connection.

    Args:
        list_name: The short name of the list.
        key_rules: The rules of the parts of the list's sort key.
        first: The page size; None means `default`.
        after: A cursor of the list; None or UNSET means the first page.
        filters: The values that select the rows of the list, including the parent's id. Each has
            the form that the services take, so that two spellings of a filter are the same filter.
        default: The default page size.

    Raises:
        GraphQLError: `first` exceeds the maximum (LIMIT_EXCEEDED) or is less than 1 (BAD_REQUEST),
            or `after` is not a cursor of the list (BAD_REQUEST).
    """
    count = default if first is None else first
    if count < 1:
        raise bad_request("first", f"{count} is too few", f"1 to {validators.MAX_PAGE_ROWS}")
    if count > validators.MAX_PAGE_ROWS:
        raise limit_exceeded("first", limit=validators.MAX_PAGE_ROWS, value=count)
    key = _decode_cursor(list_name, filters, key_rules, after) if isinstance(after, str) else None
    return PageRequest(list_name, filters, count, key)


def is_row_id(part: int | str) -> bool:
    """Return whether a part of a sort key is the id of a row."""
    return type(part) is int and 1 <= part <= validators.MAX_USER_ID


def is_slug(part: int | str) -> bool:
    """Return whether a part of a sort key is the slug of a segment."""
    return isinstance(part, str) and validators.is_slug(part)


def is_timestamp_sort_key(part: int | str) -> bool:
    """Return whether a part of a sort key is a result of `timestamp_sort_key`."""
    return type(part) is int and _MIN_TIMESTAMP_KEY <= part <= _MAX_TIMESTAMP_KEY


def timestamp_sort_key(timestamp: datetime) -> int:
    """Return a timestamp as a part of a sort key: in microseconds since 1970, exactly."""
    return (timestamp - _EPOCH) // _MICROSECOND


def timestamp_of_sort_key(key: int) -> datetime:
    """Return the timestamp of a result of `timestamp_sort_key`."""
    return _EPOCH + key * _MICROSECOND


_MIN_TIMESTAMP_KEY: Final = timestamp_sort_key(datetime.min.replace(tzinfo=UTC))
_MAX_TIMESTAMP_KEY: Final = timestamp_sort_key(datetime.max.replace(tzinfo=UTC))


def _encode_cursor(list_name: str, filters: tuple[Filter, ...], payload: bytes) -> str:
    checked = orjson.dumps((list_name, *filters)) + payload
    checksum = hashlib.blake2s(checked, digest_size=_CHECKSUM_BYTES).digest()
    return base64.urlsafe_b64encode(checksum + payload).rstrip(b"=").decode()


def _decode_cursor(
    list_name: str, filters: tuple[Filter, ...], key_rules: tuple[KeyRule, ...], cursor: str
) -> SortKey:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        payload = base64.urlsafe_b64decode(padded)[_CHECKSUM_BYTES:]
        # Encoded again and compared, because base64 can represent the same bytes in several ways.
        if _encode_cursor(list_name, filters, payload) == cursor:
            key = orjson.loads(payload)
            if type(key) is list and all(
                is_valid(part) for is_valid, part in zip(key_rules, key, strict=True)
            ):
                return tuple(key)
    except (binascii.Error, ValueError, TypeError):
        pass  # rejected below, like a cursor with a wrong checksum
    raise bad_request("after", "this is not a cursor of this list", CURSOR_ALLOWED)
