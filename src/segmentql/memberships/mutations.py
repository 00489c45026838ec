"""GraphQL mutations of memberships, with their payloads."""

import strawberry

from segmentql import validators
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import cost
from segmentql.graphql.types.errors import MutationError
from segmentql.graphql.types.mutations import run_mutation
from segmentql.graphql.types.permissions import NeedsEditor
from segmentql.graphql.types.validation import InputValidator
from segmentql.memberships import segment_members, service
from segmentql.memberships.api import OutcomeCount
from segmentql.memberships.inputs import (
    UpdateSegmentMembersInput,
    UpdateUserSegmentsInput,
    read_expiry,
    read_member_lists,
    validate_slugs,
)
from segmentql.memberships.records import (
    OnExcluded,
    OnExisting,
    SegmentMembersUpdate,
    UserSegmentsUpdate,
)
from segmentql.memberships.records import OutcomeCount as OutcomeCountRecord
from segmentql.segments.api import Segment
from segmentql.segments.records import SegmentRecord
from segmentql.users.api import User
from segmentql.users.records import UserRecord


@strawberry.type(description="Result of `updateUserSegments`.")
class UpdateUserSegmentsPayload:
    user: UserRecord | None = strawberry.field(
        default=None,
        graphql_type=User | None,
        description="The user. Null if the mutation was rejected or was a dry run.",
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


@strawberry.type(description="Result of `updateSegmentMembers`.")
class UpdateSegmentMembersPayload:
    segment: SegmentRecord | None = strawberry.field(
        default=None,
        graphql_type=Segment | None,
        description="The segment. Null if the mutation was rejected or was a dry run.",
    )
    counts: list[OutcomeCountRecord] = strawberry.field(
        default_factory=list,
        graphql_type=list[OutcomeCount],
        description="The outcomes that occurred, with the number of rows of each. The numbers sum"
        " to the number of items of all lists. Empty if the mutation was rejected.",
    )
    errors: list[MutationError] = strawberry.field(
        default_factory=list,
        description="Why the mutation was rejected. Empty if it succeeded.",
        metadata=cost(size=1),
    )


async def _preview_user_segments(update: UserSegmentsUpdate) -> UpdateUserSegmentsPayload:
    return UpdateUserSegmentsPayload(
        segments_added=update.added,
        segments_removed=update.removed,
        segments_extended=update.extended,
    )


async def _preview_segment_members(update: SegmentMembersUpdate) -> UpdateSegmentMembersPayload:
    return UpdateSegmentMembersPayload(counts=update.counts)


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
        validate_slugs(validator, add, remove)
        expiry = read_expiry(validator, input)
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
                ttl=expiry.ttl,
                expires_at=expiry.expires_at,
                on_existing=input.on_existing or OnExisting.EXTEND,
                actor=info.context.actor,
            ),
            lambda update: UpdateUserSegmentsPayload(
                user=update.user,
                segments_added=update.added,
                segments_removed=update.removed,
                segments_extended=update.extended,
            ),
            dry_run=input.dry_run,
            preview=_preview_user_segments,
        )

    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Add many users to a segment and remove others from it, all or nothing. Needs"
        " EDITOR.",
        metadata=cost(input_lists=("add", "remove", "addKeys", "removeKeys")),
    )
    async def update_segment_members(
        self,
        info: Info,
        input: UpdateSegmentMembersInput,  # noqa: A002
    ) -> UpdateSegmentMembersPayload | None:
        validator = InputValidator()
        slug = validator.value(validators.slug, input.slug, "slug")
        lists = read_member_lists(validator, input)
        expiry = read_expiry(validator, input)
        return await run_mutation(
            info,
            UpdateSegmentMembersPayload,
            validator,
            lambda session: segment_members.update_segment_members(
                session,
                slug=slug,
                lists=lists,
                expiry=expiry,
                on_existing=input.on_existing or OnExisting.EXTEND,
                on_excluded=input.on_excluded or OnExcluded.ADMIT,
                actor=info.context.actor,
            ),
            lambda update: UpdateSegmentMembersPayload(
                segment=update.segment, counts=update.counts
            ),
            dry_run=input.dry_run,
            preview=_preview_segment_members,
        )
