"""Arguments that are times: the range `from` to `to`, and `asOf`."""

from datetime import datetime
from typing import Annotated, TypeAlias

import strawberry

from graphql import GraphQLError
from segmentql.errors import HistoryDropped
from segmentql.graphql.types.errors import bad_request
from segmentql.graphql.types.pagination import timestamp_sort_key

From: TypeAlias = Annotated[
    datetime | None,
    strawberry.argument(
        name="from",
        description="The earliest time, inclusive. It is not after `to`. If omitted, the list has"
        " no earliest time.",
    ),
]
To: TypeAlias = Annotated[
    datetime | None,
    strawberry.argument(
        description="The latest time, exclusive. If omitted, the list has no latest time."
    ),
]
"""The types of the arguments of every list in a range of time, which `check_time_range` checks."""

AsOf: TypeAlias = Annotated[
    datetime | None,
    strawberry.argument(
        description="A time in the past, not before the beginning of history. If omitted, now."
    ),
]
"""The type of the argument that reads the state at a time in the past."""


def check_time_range(since: datetime | None, until: datetime | None) -> None:
    """Check the arguments `from` and `to`. None and UNSET mean that there is no limit.

    Raises:
        GraphQLError: `from` is after `to`; the code is BAD_REQUEST.
    """
    if since and until and since > until:
        raise bad_request("from", "`from` is after `to`", "a time that is not after `to`")


def time_filter(bound: datetime | None) -> int | None:
    """Return the argument `from` or `to` as a filter of a list. UNSET means None."""
    return timestamp_sort_key(bound) if bound else None


def time_out_of_range(argument: str, at: datetime, earliest_at: datetime | None) -> GraphQLError:
    """Return the error of an argument that is in the future, or before the beginning of history.

    Args:
        argument: The name of the argument.
        at: The time.
        earliest_at: The beginning of history; None if nothing was dropped.
    """
    if earliest_at is not None and at < earliest_at:
        allowed = HistoryDropped(earliest_at).allowed
        return bad_request(argument, "older history was dropped", allowed)
    return bad_request(argument, "the time is in the future", "a time in the past")
