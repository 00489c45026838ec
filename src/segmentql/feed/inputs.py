"""The arguments of the change feed: its filter and cursors."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import strawberry

from segmentql import errors, validators
from segmentql.feed.records import NO_FILTER, ChangeFilter
from segmentql.graphql.types.errors import bad_request, limit_exceeded
from segmentql.graphql.types.validation import argument_value
from segmentql.history.settled import HistoryCursor
from segmentql.tables import Operation

T = TypeVar("T")

MAX_FILTER_SLUGS: Final = 100
MAX_FILTER_USERS: Final = 1000

CURSOR_ALLOWED: Final = "a cursor of a batch, of an event or of an export"


@strawberry.input(
    description="The events that a consumer receives. An event must match every field that is not"
    " null. An empty list is rejected."
)
class FeedFilter:
    slugs: list[str] | None = strawberry.field(
        default=strawberry.UNSET,
        description="The slugs of the segments, at most 100. A slug means every segment that has,"
        " had or will have it.",
    )
    user_ids: list[strawberry.ID] | None = strawberry.field(
        default=strawberry.UNSET, description="The ids of the users, at most 1,000."
    )
    operations: list[Operation] | None = strawberry.field(
        default=strawberry.UNSET, description="Only joins, or only leaves."
    )


def decode_cursor(text: str) -> HistoryCursor:
    try:
        return HistoryCursor.decode(text)
    except ValueError:
        raise errors.BadValue("this is not a cursor of changes", CURSOR_ALLOWED) from None


def to_change_filter(given: FeedFilter | None) -> ChangeFilter:
    """Return the filter of an argument.

    Raises:
        GraphQLError: A value is invalid or a list is empty (BAD_REQUEST), or a list is too long
            (LIMIT_EXCEEDED).
    """
    if not given:
        return NO_FILTER
    return ChangeFilter(
        slugs=_values(validators.slug, given.slugs, "filter.slugs", MAX_FILTER_SLUGS),
        user_ids=_values(validators.user_id, given.user_ids, "filter.userIds", MAX_FILTER_USERS),
        operations=_values(Operation, given.operations, "filter.operations", len(Operation)),
    )


def _values(
    rule: Callable[[Any], T], values: list[Any] | None, argument: str, maximum: int
) -> frozenset[T] | None:
    if values is None or values is strawberry.UNSET:
        return None
    if not values:
        raise bad_request(argument, "the list is empty", f"1 to {maximum} values, or null")
    if len(values) > maximum and rule is not Operation:
        raise limit_exceeded(argument, limit=maximum, value=len(values))
    return frozenset(argument_value(rule, value, argument) for value in values)
