"""GraphQL types and mutations of memberships."""

from collections.abc import Sequence
from datetime import datetime

import strawberry
from strawberry import Parent

from segmentql import validators
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import cost
from segmentql.graphql.types.enums import describe_enum
from segmentql.graphql.types.errors import MutationError
from segmentql.graphql.types.mutations import run_mutation
from segmentql.graphql.types.permissions import NeedsEditor
from segmentql.graphql.types.validation import InputValidator
from segmentql.memberships import service
from segmentql.memberships.records import MembershipRecord, OnExisting
from segmentql.segments.api import Segment
from segmentql.segments.records import SegmentRecord
from segmentql.tables import Cause
from segmentql.users.api import User
from segmentql.users.records import UserRecord

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
        description="MANUAL or ROLLOUT. Adding a member of a rollout with `updateUserSegments`"
        " changes it to MANUAL, unless `onExisting` is KEEP."
    )
    actor: str | None = strawberry.field(
        description="The name of the API key that added the user, if known."
    )
    user: UserRecord = strawberry.field(graphql_type=User, description="The user.")


@strawberry.input(description="Input of `updateUserSegments`.")
class UpdateUserSegmentsInput:
    user_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="The user's id. If the user is not stored, the mutation stores the user. Use"
        " either `userId` or `userKey`.",
    )
    user_key: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The user's key: 1 to 255 characters without control characters. If no stored"
        " user has the key, the mutation stores a user with the key and a new id.",
    )
    add: list[str] | None = strawberry.field(
        default_factory=list,
        description="Slugs of the segments to add the user to. `add` and `remove` together have at"
        " most 100 slugs.",
    )
    remove: list[str] | None = strawberry.field(
        default_factory=list,
        description="Slugs of the segments to remove the user from. The segments' rollouts"
        " exclude the user from then on.",
    )
    ttl_seconds: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="Seconds until the memberships of `add` end: 1 to 315360000.",
    )
    expires_at: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="When the memberships of `add` end. Use it instead of `ttlSeconds`.",
    )
    on_existing: OnExisting | None = strawberry.field(
        default=OnExisting.EXTEND,
        description="The effect of adding a user who is already an active member.",
    )


@strawberry.type(description="Result of `updateUserSegments`.")
class UpdateUserSegmentsPayload:
    user: UserRecord | None = strawberry.field(
        default=None,
        graphql_type=User | None,
        description="The user. Null if the mutation was rejected.",
    )
    segments_added: int = strawberry.field(default=0, description="Number of joins.")
    segments_removed: int = strawberry.field(default=0, description="Number of leaves.")
    segments_extended: int = strawberry.field(
        default=0, description="Number of memberships that stayed and whose end changed."
    )
    errors: list[MutationError] = strawberry.field(
        default_factory=list,
        description="Why the mutation was rejected. Empty if it succeeded.",
        metadata=cost(size=1),
    )


@strawberry.type
class MembershipMutations:
    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Add a user to segments and remove the user from others, all or nothing."
        " Needs EDITOR.",
    )
    async def update_user_segments(
        self,
        info: Info,
        input: UpdateUserSegmentsInput,  # noqa: A002
    ) -> UpdateUserSegmentsPayload | None:
        validator = InputValidator()
        user_id = validator.optional(validators.user_id, input.user_id, "userId", absent=None)
        user_key = validator.optional(validators.user_key, input.user_key, "userKey", absent=None)
        validator.check_exactly_one(("userId", user_id), ("userKey", user_key))
        add, remove = input.add or [], input.remove or []
        _validate_slugs(validator, add, remove)
        ttl = validator.optional(validators.ttl, input.ttl_seconds, "ttlSeconds", absent=None)
        expires_at = input.expires_at or None
        if ttl is not None and expires_at is not None:
            validator.add_error(
                "both `ttlSeconds` and `expiresAt` are set",
                "at most one of `ttlSeconds` and `expiresAt`",
                "expiresAt",
            )
        return await run_mutation(
            info,
            UpdateUserSegmentsPayload,
            validator,
            lambda session: service.update_user_segments(
                session,
                user_id=user_id,
                user_key=user_key,
                add=add,
                remove=remove,
                ttl=ttl,
                expires_at=expires_at,
                on_existing=input.on_existing or OnExisting.EXTEND,
                actor=info.context.actor,
            ),
            lambda update: UpdateUserSegmentsPayload(
                user=update.user,
                segments_added=update.added,
                segments_removed=update.removed,
                segments_extended=update.extended,
            ),
        )


def _validate_slugs(validator: InputValidator, add: Sequence[str], remove: Sequence[str]) -> None:
    """Validate the form, the uniqueness and the number of the slugs of both lists."""
    total = len(add) + len(remove)
    if total > validators.MAX_SLUGS_PER_CHANGE:
        longer = "add" if len(add) >= len(remove) else "remove"
        validator.add_error(
            f"{total} slugs in `add` and `remove`",
            f"at most {validators.MAX_SLUGS_PER_CHANGE} slugs together",
            longer,
        )
        return
    first_paths: dict[str, str] = {}
    for field, slugs in (("add", add), ("remove", remove)):
        for position, slug in enumerate(slugs):
            validator.value(validators.slug, slug, field, str(position))
            path = f"{field}.{position}"
            first_path = first_paths.setdefault(slug, path)
            if first_path != path:
                validator.add_error(
                    f"{slug} is already in {first_path}",
                    "each slug once, in `add` or in `remove`",
                    field,
                    str(position),
                )
