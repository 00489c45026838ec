"""GraphQL of history."""

import enum
from collections.abc import Awaitable
from datetime import datetime
from typing import Annotated, Any

import strawberry

from segmentql import validators
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import HISTORY_SCAN, cost
from segmentql.graphql.types.pagination import After, Connection, First
from segmentql.graphql.types.validation import optional_argument
from segmentql.history import loaders
from segmentql.history.service import Position
from segmentql.segments.api import Segment
from segmentql.users.api import User
from segmentql.users.loaders import UserById


@strawberry.enum(description="What happened.")
class Operation(enum.Enum):
    JOINED = strawberry.enum_value("JOINED", description="The user came into the segment.")
    LEFT = strawberry.enum_value("LEFT", description="The user left the segment.")


@strawberry.enum(description="Why a membership began or ended.")
class Cause(enum.Enum):
    MANUAL = strawberry.enum_value("MANUAL", description="Somebody asked for it.")
    ROLLOUT = strawberry.enum_value("ROLLOUT", description="A percent rollout did it.")
    TTL = strawberry.enum_value("TTL", description="The membership ran out.")
    SEGMENT_DELETED = strawberry.enum_value(
        "SEGMENT_DELETED", description="The segment was deleted."
    )
    USER_DELETED = strawberry.enum_value("USER_DELETED", description="The user was deleted.")


@strawberry.type(description="One join or leave, as the database recorded it or is about to.")
class HistoryEntry:
    id: strawberry.ID = strawberry.field(
        description="Opaque; the same before and after a leave is recorded."
    )
    user_id: strawberry.ID = strawberry.field(description="The caller's number for the user.")
    segment: Segment = strawberry.field(description="The segment, even after its deletion.")
    operation: Operation = strawberry.field(description="Whether it was a join or a leave.")
    at: datetime = strawberry.field(description="When it happened.")
    recorded_at: datetime | None = strawberry.field(
        description="When the database wrote it down; null for a leave that is due to be."
    )
    cause: Cause = strawberry.field(description="Why it happened.")
    actor: str | None = strawberry.field(description="Who did it, where somebody is known to have.")
    position: strawberry.Private[Position]

    @classmethod
    def from_row(cls, row: Any) -> "HistoryEntry":
        return cls(
            id=strawberry.ID(f"his_{row.membership_id}_{row.operation.lower()}"),
            user_id=strawberry.ID(str(row.user_id)),
            segment=Segment.from_row(row),
            operation=Operation(row.operation),
            at=row.at,
            recorded_at=row.recorded_at,
            cause=Cause(row.cause),
            actor=row.actor,
            position=Position(row.at, row.user_id, row.operation, row.slug, row.membership_id),
        )

    @strawberry.field(description="The user; null where not stored now.", graphql_type=User | None)
    def user(self, info: Info) -> Awaitable[User | None]:
        return info.context.loader(UserById).load(self.position.user_id)


@strawberry.type
class HistoryQueries:
    @strawberry.field(
        description="Joins and leaves, newest first.",
        metadata=cost(if_given={"userId": HISTORY_SCAN, "slug": HISTORY_SCAN}),
    )
    async def history(
        self,
        info: Info,
        first: First = 50,
        after: After = strawberry.UNSET,
        user_id: Annotated[
            strawberry.ID | None,
            strawberry.argument(description="Only this user, stored now or not."),
        ] = strawberry.UNSET,
        slug: Annotated[
            str | None,
            strawberry.argument(description="Only segments that bear or bore this slug."),
        ] = strawberry.UNSET,
        from_: Annotated[
            datetime | None,
            strawberry.argument(name="from", description="The earliest moment, inclusive."),
        ] = strawberry.UNSET,
        to: Annotated[
            datetime | None,
            strawberry.argument(description="The latest moment, exclusive."),
        ] = strawberry.UNSET,
    ) -> Connection[HistoryEntry] | None:
        return await loaders.history_connection(
            info.context,
            first=first,
            after=after,
            since=from_,
            until=to,
            user_id=optional_argument(validators.user_id, user_id, "userId"),
            slug=slug,
        )
