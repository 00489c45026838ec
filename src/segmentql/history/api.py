"""GraphQL types and queries of history."""

from collections.abc import Awaitable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry
from strawberry import Parent

from segmentql import validators
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import HISTORY_SCAN, cost
from segmentql.graphql.types.enums import describe_enum
from segmentql.graphql.types.pagination import After, Connection, First
from segmentql.graphql.types.times import From, To
from segmentql.graphql.types.validation import optional_argument
from segmentql.history.loaders import UserKeyAt, history_connection
from segmentql.history.records import HistoryEntryRecord
from segmentql.imports.loaders import ImportById
from segmentql.imports.records import ImportRecord
from segmentql.segments.api import Segment
from segmentql.segments.records import SegmentRecord
from segmentql.tables import Cause, Operation
from segmentql.users.api import User
from segmentql.users.loaders import UserById
from segmentql.users.records import UserRecord

if TYPE_CHECKING:
    from segmentql.imports.api import Import

describe_enum(
    Operation,
    "The kind of a history entry.",
    {
        Operation.JOINED: "The user joined the segment.",
        Operation.LEFT: "The user left the segment.",
    },
)
describe_enum(
    Cause,
    "Why a membership began or ended.",
    {
        Cause.MANUAL: "A mutation added or removed the user.",
        Cause.ROLLOUT: "A rollout added or removed the user.",
        Cause.TTL: "The TTL of the membership ended.",
        Cause.SEGMENT_DELETED: "The segment was deleted.",
        Cause.USER_DELETED: "The user was deleted.",
    },
)


def _entry_id(entry: Parent[HistoryEntryRecord]) -> strawberry.ID:
    return strawberry.ID(f"his_{entry.membership_id}_{entry.operation.lower()}")


@strawberry.type(description="One join or leave.")
class HistoryEntry:
    id: strawberry.ID = strawberry.field(
        resolver=_entry_id,
        description="Opaque id. It is the same before and after a leave is recorded.",
    )

    user_id: strawberry.ID = strawberry.field(description="The user's id.")
    segment: SegmentRecord = strawberry.field(
        graphql_type=Segment, description="The segment, which may be deleted."
    )
    operation: Operation = strawberry.field(description="Whether the user joined or left.")
    at: datetime = strawberry.field(description="When the user joined or left.")
    recorded_at: datetime | None = strawberry.field(
        description="When the database recorded the entry. Null if no worker has recorded the"
        " leave yet."
    )
    cause: Cause = strawberry.field(description="Why the user joined or left.")
    actor: str | None = strawberry.field(
        description="The name of the API key that caused the join or leave, if known."
    )

    @strawberry.field(
        name="import",
        description="The import that added or removed the user. Null if no import did.",
        graphql_type=Annotated["Import", strawberry.lazy("segmentql.imports.api")] | None,
        metadata=cost(1),
    )
    @staticmethod
    def import_(
        entry: Parent[HistoryEntryRecord], info: Info
    ) -> Awaitable[ImportRecord | None] | None:
        import_id = entry.import_id
        return None if import_id is None else info.context.loader(ImportById).load(import_id)

    @strawberry.field(
        description="The user. Null if the user is not stored.", graphql_type=User | None
    )
    @staticmethod
    def user(entry: Parent[HistoryEntryRecord], info: Info) -> Awaitable[UserRecord | None]:
        return info.context.loader(UserById).load(entry.user_id)

    @strawberry.field(
        description="The user's key, even if it was set after this entry or if the user is deleted."
        " Null if the user has or had no key, or if the key was erased. If the user was deleted and"
        " the id was stored again, each entry has the key of its own user.",
        graphql_type=str | None,
        metadata=cost(1),
    )
    @staticmethod
    def user_key(entry: Parent[HistoryEntryRecord], info: Info) -> Awaitable[str | None]:
        return info.context.loader(UserKeyAt).load((entry.user_id, entry.at))


@strawberry.type
class HistoryQueries:
    @strawberry.field(
        description="Joins and leaves, newest first.",
        graphql_type=Connection[HistoryEntry] | None,
        metadata=cost(if_given={"userId": HISTORY_SCAN, "slug": HISTORY_SCAN}),
    )
    async def history(
        self,
        info: Info,
        first: First = 50,
        after: After = strawberry.UNSET,
        user_id: Annotated[
            strawberry.ID | None,
            strawberry.argument(
                description="Return only entries of this user, who may be deleted."
            ),
        ] = strawberry.UNSET,
        slug: Annotated[
            str | None,
            strawberry.argument(
                description="Return only entries of segments with this slug, deleted ones included."
            ),
        ] = strawberry.UNSET,
        from_: From = strawberry.UNSET,
        to: To = strawberry.UNSET,
    ) -> Connection[HistoryEntryRecord]:
        return await history_connection(
            info.context,
            first=first,
            after=after,
            since=from_,
            until=to,
            user_id=optional_argument(validators.user_id, user_id, "userId"),
            slug=slug,
        )
