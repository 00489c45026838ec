"""Relay connections with keyset cursors: a page costs the same wherever it begins.

A cursor is the sort key of its row, so that rows which come and go between two pages neither
repeat others nor hide them. It is opaque, and carries a check sum: one that was changed on the way
is refused rather than read as another place.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Generic, TypeAlias, TypeVar

import orjson
import strawberry

from segmentql import values
from segmentql.graphql.failures import bad_request, limit_exceeded

T = TypeVar("T")
Row = TypeVar("Row")

SortKey: TypeAlias = tuple[int | str, ...]
KeyRule: TypeAlias = Callable[[int | str], bool]
"""Says whether something may be one part of a sort key: the check sum keeps mistakes out, not a
cursor that somebody made up."""

CURSOR_ALLOWED: Final = "a cursor from an earlier page of the same list"
_CHECK_BYTES: Final = 4
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


First: TypeAlias = Annotated[int | None, strawberry.argument(description="How many: 1 to 100.")]
After: TypeAlias = Annotated[
    str | None, strawberry.argument(description="The cursor that the page follows.")
]
"""The arguments of every connection, as `place` reads them."""


@strawberry.type(description="Where a page stands in its list.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether more follow this page.")
    has_previous_page: bool = strawberry.field(
        description="Whether this page was asked for with `after`."
    )
    start_cursor: str | None = strawberry.field(description="The cursor of the first node.")
    end_cursor: str | None = strawberry.field(
        description="The cursor of the last node: give it as `after` for the next page."
    )


@strawberry.type(description="A node and its place in the list.")
class Edge(Generic[T]):
    cursor: str = strawberry.field(description="This node's place: an opaque string.")
    node: T = strawberry.field(description="The node itself.")


@strawberry.type(description="A page of a list.")
class Connection(Generic[T]):
    nodes: list[T] = strawberry.field(description="The nodes of this page.")
    sort_keys: strawberry.Private[Sequence[SortKey]]
    has_more: strawberry.Private[bool]
    place: strawberry.Private["Place"]

    @strawberry.field(description="The nodes of this page with their cursors.")
    def edges(self) -> list[Edge[T]]:
        return [
            Edge(cursor=self.place.cursor(key), node=node)
            for key, node in zip(self.sort_keys, self.nodes, strict=True)
        ]

    @strawberry.field(description="Where this page stands in the list.")
    def page_info(self) -> PageInfo:
        cursor, keys = self.place.cursor, self.sort_keys
        return PageInfo(
            has_next_page=self.has_more,
            has_previous_page=self.place.after is not None,
            start_cursor=cursor(keys[0]) if keys else None,
            end_cursor=cursor(keys[-1]) if keys else None,
        )


@dataclass(frozen=True)
class Place:
    """Which page of which list is asked for."""

    kind: str
    """The list's short name, so that a cursor of another list is refused."""

    first: int
    after: SortKey | None

    def cursor(self, key: SortKey) -> str:
        return _written(orjson.dumps([self.kind, *key]))

    def page(
        self, rows: Sequence[Row], node: Callable[[Row], T], key: Callable[[Row], SortKey]
    ) -> Connection[T]:
        """Make the page out of up to `first + 1` rows: one more than asked says more follow."""
        shown = rows[: self.first]
        return Connection(
            nodes=[node(row) for row in shown],
            sort_keys=[key(row) for row in shown],
            has_more=len(rows) > self.first,
            place=self,
        )


def place(
    kind: str,
    shape: tuple[KeyRule, ...],
    first: int | None,
    after: str | None,
    *,
    default: int = 50,
) -> Place:
    """Read the arguments of a connection; `shape` is the rules of its sort key.

    Raises:
        GraphQLError: LIMIT_EXCEEDED for a `first` beyond the maximum, BAD_REQUEST for one below 1
            or a cursor that is none of this list's.
    """
    count = default if first is None else first
    if count < 1:
        raise bad_request("first", f"{count} is too few", f"1 to {values.MAX_PAGE_ROWS}")
    if count > values.MAX_PAGE_ROWS:
        raise limit_exceeded("first", limit=values.MAX_PAGE_ROWS, value=count)
    return Place(kind, count, _read(kind, shape, after) if isinstance(after, str) else None)


def is_number(part: int | str) -> bool:
    """Whether it is the number of a row."""
    return type(part) is int and 1 <= part <= values.MAX_USER_ID


def is_slug(part: int | str) -> bool:
    """Whether it is the slug of a segment."""
    return isinstance(part, str) and values.is_slug(part)


def is_moment(part: int | str) -> bool:
    """Whether it is what `moment_key` writes."""
    return type(part) is int and _FIRST_MOMENT <= part <= _LAST_MOMENT


def moment_key(moment: datetime) -> int:
    """A moment as a sort key holds it: whole microseconds since 1970, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def moment_of(key: int) -> datetime:
    """The moment that `moment_key` wrote."""
    return _EPOCH + key * _MICROSECOND


_FIRST_MOMENT: Final = moment_key(datetime.min.replace(tzinfo=UTC))
_LAST_MOMENT: Final = moment_key(datetime.max.replace(tzinfo=UTC))


def _written(payload: bytes) -> str:
    check = hashlib.blake2s(payload, digest_size=_CHECK_BYTES).digest()
    return base64.urlsafe_b64encode(check + payload).rstrip(b"=").decode()


def _read(kind: str, shape: tuple[KeyRule, ...], cursor: str) -> SortKey:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        payload = base64.urlsafe_b64decode(padded)[_CHECK_BYTES:]
        # Written anew and compared: base64 has several spellings of the same bytes.
        if _written(payload) == cursor:
            named, *key = orjson.loads(payload)
            if named == kind and all(rule(part) for rule, part in zip(shape, key, strict=True)):
                return tuple(key)
    except (binascii.Error, ValueError, TypeError):
        pass  # told below, as one with any other defect
    raise bad_request("after", "this is not a cursor of this list", CURSOR_ALLOWED)
