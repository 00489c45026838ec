"""GraphQL types, the query and the subscription of the change feed."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Final, TypeAlias

import strawberry
from strawberry import Parent

from graphql import GraphQLError
from segmentql import errors, validators
from segmentql.feed.inputs import FeedFilter, decode_cursor, to_change_filter
from segmentql.feed.reader import FeedReader
from segmentql.feed.records import (
    ChangeBatchRecord,
    ChangeRecord,
    FeedStart,
)
from segmentql.feed.service import MAX_BATCH_CHANGES
from segmentql.feed.stream import ChangeStream
from segmentql.feed.waiting import read_changes
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import cost
from segmentql.graphql.types.enums import describe_enum
from segmentql.graphql.types.errors import Code
from segmentql.graphql.types.validation import argument_value, optional_argument, size_argument
from segmentql.history.api import HistoryEntry
from segmentql.history.records import HistoryEntryRecord

DEFAULT_BATCH_CHANGES: Final = 100
FILTER_COST: Final = 10
"""The cost of a filter, for which a statement may read 10,000 rows."""


describe_enum(
    FeedStart,
    "The position at which a consumer without a cursor begins.",
    {
        FeedStart.NOW: "After the newest change.",
        FeedStart.EARLIEST: "Before the oldest change that is stored.",
    },
)


@strawberry.interface(description="An event of the change feed.")
class FeedEvent:
    change: strawberry.Private[ChangeRecord]

    @strawberry.field(
        description="The position of the event in the feed. Send it as `after` to read what"
        " follows."
    )
    @staticmethod
    def cursor(event: Parent["FeedEvent"]) -> str:
        return event.change.cursor.encode()

    @strawberry.field(description="When the event happened.")
    @staticmethod
    def at(event: Parent["FeedEvent"]) -> datetime:
        return event.change.entry.at


@strawberry.type(description="A user joined or left a segment.")
class MembershipEvent(FeedEvent):
    @strawberry.field(description="The join or leave.", graphql_type=HistoryEntry)
    @staticmethod
    def entry(event: Parent["MembershipEvent"]) -> HistoryEntryRecord:
        return event.change.entry


def _events(batch: Parent[ChangeBatchRecord]) -> list[FeedEvent]:
    return [MembershipEvent(change=change) for change in batch.changes]


def _cursor(batch: Parent[ChangeBatchRecord]) -> str:
    return batch.cursor.encode()


@strawberry.type(
    description="Events in the order in which they were recorded. For each user that is the order"
    " of time, except that leaves of a deleted segment come when they are recorded."
)
class ChangeBatch:
    events: list[FeedEvent] = strawberry.field(
        resolver=_events, description="The events after the requested cursor. May be empty."
    )
    cursor: str = strawberry.field(
        resolver=_cursor,
        description="The cursor after this batch. Store it, and send it as `after` to continue.",
    )
    caught_up: bool = strawberry.field(
        description="True if no readable change follows this batch and all due leaves are recorded."
        " If false, request the next batch."
    )


After: TypeAlias = Annotated[
    str | None,
    strawberry.argument(
        description="The cursor after which to read: of a batch, an event or an export."
    ),
]
Start: TypeAlias = Annotated[
    FeedStart | None,
    strawberry.argument(description="The position at which to begin if `after` is not given."),
]
Filter: TypeAlias = Annotated[
    FeedFilter | None,
    strawberry.argument(
        description="The events to return. The cursor advances also over other events."
    ),
]


@strawberry.type
class FeedQueries:
    @strawberry.field(
        description="Changes after a cursor, in the order of recording. Without a cursor and with"
        " the start NOW, the batch is empty and has the cursor of the newest change.",
        graphql_type=ChangeBatch | None,
        metadata=cost(max_first=MAX_BATCH_CHANGES, if_given={"filter": FILTER_COST}),
    )
    async def changes(
        self,
        info: Info,
        after: After = strawberry.UNSET,
        start: Start = FeedStart.NOW,
        first: Annotated[
            int | None,
            strawberry.argument(description="The maximum number of events, from 1 to 1000."),
        ] = DEFAULT_BATCH_CHANGES,
        filter: Filter = strawberry.UNSET,  # noqa: A002 - the name of the argument
        wait_seconds: Annotated[
            int | None,
            strawberry.argument(
                description="How long to wait for the first event, from 0 to 60 seconds."
            ),
        ] = 0,
    ) -> ChangeBatchRecord:
        cursor = optional_argument(decode_cursor, after, "after")
        max_changes = size_argument(
            first, "first", default=DEFAULT_BATCH_CHANGES, maximum=MAX_BATCH_CHANGES
        )
        change_filter = to_change_filter(filter)
        wait_seconds = argument_value(validators.wait_seconds, wait_seconds or 0, "waitSeconds")
        with _feed_errors():
            return await read_changes(
                info.context,
                after=cursor,
                start=start or FeedStart.NOW,
                max_changes=max_changes,
                change_filter=change_filter,
                wait_seconds=wait_seconds,
            )


@strawberry.type
class FeedSubscriptions:
    @strawberry.subscription(
        description="Changes after a cursor, in the order of recording, as they happen. The first"
        " batch is empty and has the cursor at which the subscription begins.",
        graphql_type=ChangeBatch,
        metadata=cost(
            size_argument="batch", max_first=MAX_BATCH_CHANGES, if_given={"filter": FILTER_COST}
        ),
    )
    async def changes(
        self,
        info: Info,
        after: After = strawberry.UNSET,
        start: Start = FeedStart.NOW,
        filter: Filter = strawberry.UNSET,  # noqa: A002 - the name of the argument
        batch: Annotated[
            int | None,
            strawberry.argument(
                description="The maximum number of events in a batch, from 1 to 1000."
            ),
        ] = DEFAULT_BATCH_CHANGES,
    ) -> AsyncGenerator[ChangeBatchRecord, None]:
        cursor = optional_argument(decode_cursor, after, "after")
        max_changes = size_argument(
            batch, "batch", default=DEFAULT_BATCH_CHANGES, maximum=MAX_BATCH_CHANGES
        )
        change_filter = to_change_filter(filter)
        context = info.context
        with _feed_errors():
            stream = await ChangeStream.open(
                context.feature(FeedReader),
                after=cursor,
                start=start or FeedStart.NOW,
                change_filter=change_filter,
                max_changes=max_changes,
                key_id=context.principal.key_id,
                stopping=context.stopping,
            )
        return _Batches(stream)  # type: ignore[return-value]  # an asynchronous iterator


class _Batches:
    """The batches of a stream, with errors of GraphQL."""

    def __init__(self, stream: ChangeStream) -> None:
        self._stream = stream

    def __aiter__(self) -> "_Batches":
        return self

    async def __anext__(self) -> ChangeBatchRecord:
        with _feed_errors():
            return await self._stream.__anext__()

    async def aclose(self) -> None:
        await self._stream.aclose()


@contextmanager
def _feed_errors() -> Iterator[None]:
    """Turn errors of the feed into GraphQL errors."""
    try:
        yield
    except errors.CursorExpired:
        raise GraphQLError(
            "The changes after this cursor are no longer stored. Load the members again, for"
            " instance by an export, and continue from its cursor.",
            extensions={"code": Code.CURSOR_EXPIRED},
        ) from None
    except errors.FeedReset:
        raise GraphQLError(
            "The database does not have the change that this cursor names, because it was restored"
            " to an earlier state. Load the members again, for instance by an export, and continue"
            " from its cursor.",
            extensions={"code": Code.FEED_RESET},
        ) from None
    except errors.ConcurrencyLimitExceeded as exceeded:
        owner = "API key" if exceeded.is_per_key else "server process"
        place = " in this process" if exceeded.is_per_key else ""
        raise GraphQLError(
            f"The {owner} already has {exceeded.limit} consumers of the change feed{place}.",
            extensions={
                "code": Code.LIMIT_EXCEEDED if exceeded.is_per_key else Code.UNAVAILABLE,
                "limit": exceeded.limit,
            },
        ) from None
