"""GraphQL types of memberships."""

from collections.abc import Awaitable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry
from strawberry import Parent

from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import cost
from segmentql.graphql.types.enums import describe_enum
from segmentql.graphql.types.scalars import BigInt
from segmentql.graphql.types.stored_results import register_value
from segmentql.imports.loaders import ImportById
from segmentql.imports.records import ImportRecord
from segmentql.memberships.records import MembershipRecord, OnExcluded, OnExisting
from segmentql.memberships.records import OutcomeCount as OutcomeCountRecord
from segmentql.segments.api import Segment
from segmentql.segments.records import SegmentRecord
from segmentql.tables import Cause, RowOutcome
from segmentql.users.api import User
from segmentql.users.records import UserRecord

if TYPE_CHECKING:
    from segmentql.imports.api import Import


describe_enum(
    OnExisting,
    "The effect of adding a user who is already an active member.",
    {
        OnExisting.EXTEND: "The membership keeps the later of its current and its new end. If"
        " either is null, it has no end. The cause becomes MANUAL.",
        OnExisting.REPLACE: "The membership gets the new end. The cause becomes MANUAL.",
        OnExisting.KEEP: "The membership does not change.",
    },
)

describe_enum(
    OnExcluded,
    "The effect of adding a user who is excluded from the segment's rollout.",
    {
        OnExcluded.SKIP: "The user stays excluded and does not join.",
        OnExcluded.ADMIT: "The exclusion ends and the user joins.",
    },
)

describe_enum(
    RowOutcome,
    "The outcome of one row of a list of users. Each row has one outcome.",
    {
        RowOutcome.HEADER: "The row is the header of a file.",
        RowOutcome.BLANK: "The row is blank.",
        RowOutcome.JOINED: "The user joined the segment.",
        RowOutcome.END_CHANGED: "The user was an active member, and the end of the membership"
        " changed.",
        RowOutcome.ALREADY_IN: "The user was and stays an active member, and the end did not"
        " change. Or an import would have removed the user: the rollout kept the user, with the"
        " rollout's end, or the membership had changed since the import read the members.",
        RowOutcome.LEFT: "The user left the segment.",
        RowOutcome.NOT_IN: "The user to remove is stored, but was not an active member.",
        RowOutcome.DUPLICATE: "An earlier row of the list has the same user.",
        RowOutcome.EXCLUDED: "The user is excluded from the segment's rollout, so nothing changed.",
        RowOutcome.UNKNOWN_USER: "The user is not stored, so nothing changed.",
        RowOutcome.MALFORMED: "The row does not have the format of the file, or its value is not"
        " an id or a key.",
        RowOutcome.OUT_OF_RANGE: "The id is larger than 9223372036854775807.",
        RowOutcome.NOT_REACHED: "The row is not applied yet, or the import ended before it.",
    },
)


def _membership_id(membership: Parent[MembershipRecord]) -> strawberry.ID:
    return strawberry.ID(f"mem_{membership.membership_id}")


@strawberry.type(description="One user in one segment, from a join until the membership ends.")
class Membership:
    id: strawberry.ID = strawberry.field(
        resolver=_membership_id, description="Opaque id. Rejoining creates a new membership."
    )

    segment: SegmentRecord = strawberry.field(graphql_type=Segment, description="The segment.")
    joined_at: datetime = strawberry.field(description="When the user joined.")
    updated_at: datetime = strawberry.field(
        description="When the end or the cause of the membership was last changed."
    )
    expires_at: datetime | None = strawberry.field(
        description="When the membership ends by its TTL. Null if it has none."
    )
    cause: Cause = strawberry.field(
        description="MANUAL or ROLLOUT. Adding a member of a rollout by hand changes it to MANUAL,"
        " unless `onExisting` is KEEP."
    )
    actor: str | None = strawberry.field(
        description="The name of the API key that added the user, if known."
    )
    user: UserRecord = strawberry.field(graphql_type=User, description="The user.")

    @strawberry.field(
        name="import",
        description="The import that added the user. Null if no import did.",
        graphql_type=Annotated["Import", strawberry.lazy("segmentql.imports.api")] | None,
        metadata=cost(1),
    )
    @staticmethod
    def import_(
        membership: Parent[MembershipRecord], info: Info
    ) -> Awaitable[ImportRecord | None] | None:
        import_id = membership.import_id
        return None if import_id is None else info.context.loader(ImportById).load(import_id)


@strawberry.type(description="The number of rows with one outcome.")
class OutcomeCount:
    outcome: RowOutcome = strawberry.field(description="The outcome.")
    count: BigInt = strawberry.field(description="The number of rows.")


register_value(
    OutcomeCountRecord,
    "outcomeCount",
    lambda item: [item.outcome, item.count],
    lambda stored: OutcomeCountRecord(RowOutcome(stored[0]), stored[1]),
)
