"""Relay connections with keyset cursors: a page costs the same wherever it begins.

A cursor is the sort key of its row, so that rows which come and go between two pages neither
repeat others nor hide them. It is opaque, and carries a check sum of the key, the list and the
list's filters. A cursor of another list, or one that was changed on the way, is rejected.
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
"""Says whether something may be one part of a sort key: the check sum keeps mistakes out, not a
cursor that somebody made up."""

Filter: TypeAlias = int | str | None

CURSOR_ALLOWED: Final = "a cursor from an earlier page of the same list, with the same filters"
_CHECK_BYTES: Final = 6
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


First: TypeAlias = Annotated[int | None, strawberry.argument(description="How many: 1 to 100.")]
After: TypeAlias = Annotated[
    str | None,
    strawberry.argument(
        description="A cursor of this list, with the same filters, that the page follows."
    ),
]
"""The arguments of every connection, as `parse_page_arguments` reads them."""


@strawberry.type(description="Where a page stands in its list.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether more follow this page.")
    has_previous_page: bool = strawberry.field(
        description="Whether this page was asked for with `after`."
    )
    sort_keys: strawberry.Private["Sequence[SortKey]"]
    page_request: strawberry.Private["PageRequest"]

    # Cursors are made by resolvers, so that only those are made that the client selects.

    @strawberry.field(description="The cursor of the first node.")
    def start_cursor(self) -> str | None:
        return self.page_request.cursor(self.sort_keys[0]) if self.sort_keys else None

    @strawberry.field(
        description="The cursor of the last node: give it as `after` for the next page."
    )
    def end_cursor(self) -> str | None:
        return self.page_request.cursor(self.sort_keys[-1]) if self.sort_keys else None


def _cursor(root: "Edge[Any]") -> str:
    return root.page_request.cursor(root.sort_key)


@strawberry.type(description="A node and its place in the list.")
class Edge(Generic[T]):
    cursor: str = strawberry.field(
        resolver=_cursor, description="This node's place: an opaque string."
    )
    node: T = strawberry.field(description="The node itself.")
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

    @strawberry.field(description="Where this page stands in the list.")
    def page_info(self) -> PageInfo:
        return PageInfo(
            has_next_page=self.has_more,
            has_previous_page=self.page_request.after is not None,
            sort_keys=self.sort_keys,
            page_request=self.page_request,
        )


@dataclass(frozen=True)
class PageRequest:
    """Which page of which list is asked for."""

    kind: str
    """The list's short name."""

    filters: tuple[Filter, ...]
    first: int
    after: SortKey | None

    def cursor(self, key: SortKey) -> str:
        """Write the cursor of a row; it is valid only for this list with these filters."""
        return _written(self.kind, self.filters, orjson.dumps(key))

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
    kind: str,
    shape: tuple[KeyRule, ...],
    first: int | None,
    after: str | None,
    *,
    filters: tuple[Filter, ...] = (),
    default: int = 50,
) -> PageRequest:
    """Read the arguments of a connection.

    Args:
        kind: The list's short name.
        shape: The rules of the list's sort key.
        first: How many; None means `default`.
        after: A cursor of the same list; None or UNSET means the beginning.
        filters: The values that select the list's rows, the parent's number among them, each as
            the services take it, so that two spellings of a filter are the same filter.

    Raises:
        GraphQLError: LIMIT_EXCEEDED for a `first` beyond the maximum, BAD_REQUEST for one below 1
            or a cursor that is none of this list's.
    """
    count = default if first is None else first
    if count < 1:
        raise bad_request("first", f"{count} is too few", f"1 to {validators.MAX_PAGE_ROWS}")
    if count > validators.MAX_PAGE_ROWS:
        raise limit_exceeded("first", limit=validators.MAX_PAGE_ROWS, value=count)
    key = _read(kind, filters, shape, after) if isinstance(after, str) else None
    return PageRequest(kind, filters, count, key)


def is_number(part: int | str) -> bool:
    """Whether it is the number of a row."""
    return type(part) is int and 1 <= part <= validators.MAX_USER_ID


def is_slug(part: int | str) -> bool:
    """Whether it is the slug of a segment."""
    return isinstance(part, str) and validators.is_slug(part)


def is_timestamp_sort_key(part: int | str) -> bool:
    """Whether it is what `timestamp_sort_key` writes."""
    return type(part) is int and _FIRST_MOMENT <= part <= _LAST_MOMENT


def timestamp_sort_key(moment: datetime) -> int:
    """A moment as a sort key holds it: whole microseconds since 1970, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def timestamp_of_sort_key(key: int) -> datetime:
    """The moment that `timestamp_sort_key` wrote."""
    return _EPOCH + key * _MICROSECOND


_FIRST_MOMENT: Final = timestamp_sort_key(datetime.min.replace(tzinfo=UTC))
_LAST_MOMENT: Final = timestamp_sort_key(datetime.max.replace(tzinfo=UTC))


def _written(kind: str, filters: tuple[Filter, ...], payload: bytes) -> str:
    checked = orjson.dumps((kind, *filters)) + payload
    check = hashlib.blake2s(checked, digest_size=_CHECK_BYTES).digest()
    return base64.urlsafe_b64encode(check + payload).rstrip(b"=").decode()


def _read(
    kind: str, filters: tuple[Filter, ...], shape: tuple[KeyRule, ...], cursor: str
) -> SortKey:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        payload = base64.urlsafe_b64decode(padded)[_CHECK_BYTES:]
        # Written again and compared, because base64 has several spellings of the same bytes.
        if _written(kind, filters, payload) == cursor:
            key = orjson.loads(payload)
            if type(key) is list and all(rule(part) for rule, part in zip(shape, key, strict=True)):
                return tuple(key)
    except (binascii.Error, ValueError, TypeError):
        pass  # rejected below, as one with any other defect
    raise bad_request("after", "this is not a cursor of this list", CURSOR_ALLOWED)
