"""GraphQL of segments."""

from collections.abc import Awaitable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import strawberry

from segmentql import errors, validators
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import SCAN, cost
from segmentql.graphql.types.errors import (
    ErrorCode,
    MutationError,
    as_mutation_error,
    mutation_errors,
)
from segmentql.graphql.types.pagination import (
    After,
    Connection,
    First,
    is_row_id,
    is_slug,
    parse_page_arguments,
)
from segmentql.graphql.types.permissions import NeedsAdmin, NeedsEditor
from segmentql.graphql.types.validation import InputValidator, optional_argument
from segmentql.memberships.loaders import MemberCount, Members
from segmentql.memberships.service import MembersPage
from segmentql.rollouts import service as rollouts
from segmentql.rollouts.loaders import RolloutBySegment
from segmentql.segments import service
from segmentql.segments.loaders import SegmentBySlug
from segmentql.segments.service import UNSET

if TYPE_CHECKING:
    from segmentql.adapters.database import WriteSession
    from segmentql.memberships.api import Membership
    from segmentql.rollouts.api import Rollout, RolloutInput


@strawberry.type(description="A named set of users.")
class Segment:
    id: strawberry.ID = strawberry.field(description="Opaque, and never another segment's.")
    slug: str = strawberry.field(
        description="The name that programs use. It never changes; after a deletion another segment"
        " may bear it."
    )
    name: str | None = strawberry.field(description="The name for people.")
    description: str | None = strawberry.field(
        description="What the segment is for.",
        metadata=cost(characters=validators.MAX_DESCRIPTION_LENGTH),
    )
    created_at: datetime = strawberry.field(description="When the segment was made.")
    updated_at: datetime = strawberry.field(
        description="When name, description or plan changed last."
    )
    deleted_at: datetime | None = strawberry.field(
        description="When the segment was deleted, which ended all its memberships."
    )
    version: int = strawberry.field(
        description="Counts the changes of name, description and plan, from 1."
    )
    number: strawberry.Private[int]

    @classmethod
    def from_row(cls, row: Any) -> "Segment":
        return cls(
            id=strawberry.ID(f"seg_{row.segment_id}"),
            slug=row.slug,
            name=row.name,
            description=row.description,
            created_at=row.segment_created_at,
            updated_at=row.segment_updated_at,
            deleted_at=row.deleted_at,
            version=row.version,
            number=row.segment_id,
        )

    @strawberry.field(
        description="How many active members, exactly; it costs what counting them costs.",
        graphql_type=int,
        metadata=cost(SCAN),
    )
    def member_count(self, info: Info) -> Awaitable[int]:
        return info.context.loader(MemberCount).load(self.number)

    @strawberry.field(
        description="The plan that a percent of all users is in; null where there is none.",
        graphql_type=Annotated["Rollout", strawberry.lazy("segmentql.rollouts.api")] | None,
    )
    def rollout(self, info: Info) -> "Awaitable[Rollout | None]":
        return info.context.loader(RolloutBySegment).load(self.number)

    @strawberry.field(description="The active members, by user number.")
    async def members(
        self,
        info: Info,
        first: First = 50,
        after: After = strawberry.UNSET,
    ) -> Connection[Annotated["Membership", strawberry.lazy("segmentql.memberships.api")]]:
        page = parse_page_arguments("members", (is_row_id,), first, after, filters=(self.number,))
        last = int(page.after[0]) if page.after else 0
        members = await info.context.loader(Members).load(
            MembersPage(self.number, after=last, rows=page.first + 1)
        )
        return page.page(members, lambda member: member, lambda member: (member.row.user_id,))


@strawberry.type(description="No segment bears these slugs now.")
class SegmentNotFound(MutationError):
    slugs: list[str] = strawberry.field(
        description="The slugs that none bears.",
        metadata=cost(characters=validators.MAX_SLUGS_PER_CHANGE * validators.MAX_SLUG_LENGTH),
    )


@strawberry.type(description="Another segment bears the slug.")
class SegmentAlreadyExists(MutationError):
    segment: Segment = strawberry.field(description="The segment that bears it.")


@strawberry.type(description="The segment was changed since the version you expected.")
class VersionConflict(MutationError):
    current: Segment = strawberry.field(description="The segment as it is now.")


@as_mutation_error.register
def _(refusal: errors.SegmentNotFound) -> MutationError:
    return SegmentNotFound(
        code=ErrorCode.SEGMENT_NOT_FOUND,
        message=f"No segment bears: {', '.join(refusal.slugs)}.",
        path=list(refusal.path),
        slugs=list(refusal.slugs),
    )


@as_mutation_error.register
def _(refusal: errors.SegmentAlreadyExists) -> MutationError:
    return SegmentAlreadyExists(
        code=ErrorCode.SEGMENT_ALREADY_EXISTS,
        message=f"A segment bears {refusal.segment.slug} already.",
        path=list(refusal.path),
        segment=Segment.from_row(refusal.segment),
    )


@as_mutation_error.register
def _(refusal: errors.VersionConflict) -> MutationError:
    return VersionConflict(
        code=ErrorCode.VERSION_CONFLICT,
        message=f"The segment is at version {refusal.current.version},"
        f" not {refusal.expected_version}.",
        path=list(refusal.path),
        current=Segment.from_row(refusal.current),
    )


@strawberry.type
class SegmentQueries:
    @strawberry.field(
        description="The segment that bears a slug now; null where none does.",
        graphql_type=Segment | None,
    )
    def segment(
        self,
        info: Info,
        slug: Annotated[str, strawberry.argument(description="The segment's slug.")],
    ) -> Awaitable[Segment | None] | None:
        return info.context.loader(SegmentBySlug).load(slug) if validators.is_slug(slug) else None

    @strawberry.field(description="The segments there are, by slug in order of code points.")
    async def segments(
        self,
        info: Info,
        first: First = 50,
        after: After = strawberry.UNSET,
        prefix: Annotated[
            str | None, strawberry.argument(description="Only slugs that begin with this.")
        ] = strawberry.UNSET,
    ) -> Connection[Segment] | None:
        beginning = optional_argument(validators.slug_prefix, prefix, "prefix") or ""
        page = parse_page_arguments("segments", (is_slug,), first, after, filters=(beginning,))
        last = str(page.after[0]) if page.after else ""
        rows = await info.context.read(
            lambda session: service.segment_page(
                session, after=last, prefix=beginning, rows=page.first + 1
            )
        )
        return page.page(rows, Segment.from_row, lambda row: (row.slug,))


@strawberry.input(description="The segment to make.")
class CreateSegmentInput:
    slug: str = strawberry.field(
        description="1 to 255 of A-Z a-z 0-9 _ . -, starting with a letter or a digit."
    )
    name: str | None = strawberry.field(
        default=strawberry.UNSET, description="The name for people: 1 to 255 characters."
    )
    description: str | None = strawberry.field(
        default=strawberry.UNSET, description="What it is for: up to 4096 characters."
    )
    rollout: Annotated["RolloutInput", strawberry.lazy("segmentql.rollouts.api")] | None = (
        strawberry.field(
            default=strawberry.UNSET,
            description="A plan that a percent of all users is in; it begins at once.",
        )
    )


@strawberry.type(description="What `createSegment` did.")
class CreateSegmentPayload:
    segment: Segment | None = strawberry.field(description="The segment; null when refused.")
    errors: list[MutationError] = strawberry.field(
        description="Why it was refused.", metadata=cost(size=1)
    )


@strawberry.input(description="What to change. An absent field stays, null clears it.")
class UpdateSegmentInput:
    slug: str = strawberry.field(description="Which segment.")
    name: str | None = strawberry.field(
        default=strawberry.UNSET, description="The name for people: 1 to 255 characters."
    )
    description: str | None = strawberry.field(
        default=strawberry.UNSET, description="What it is for: up to 4096 characters."
    )
    expected_version: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="Refuse unless the segment is at this version.",
    )


@strawberry.type(description="What `updateSegment` did.")
class UpdateSegmentPayload:
    segment: Segment | None = strawberry.field(
        description="The segment as it is now; null when refused."
    )
    errors: list[MutationError] = strawberry.field(
        description="Why it was refused.", metadata=cost(size=1)
    )


@strawberry.input(description="Which segment to delete.")
class DeleteSegmentInput:
    slug: str = strawberry.field(description="Which segment.")
    expected_version: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="Refuse unless the segment is at this version.",
    )


@strawberry.type(description="What `deleteSegment` did.")
class DeleteSegmentPayload:
    deleted_id: strawberry.ID | None = strawberry.field(
        description="The segment's id; null when refused."
    )
    errors: list[MutationError] = strawberry.field(
        description="Why it was refused.", metadata=cost(size=1)
    )


@strawberry.type
class SegmentMutations:
    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Make a segment. Needs EDITOR.",
    )
    async def create_segment(
        self,
        info: Info,
        input: CreateSegmentInput,  # noqa: A002
    ) -> CreateSegmentPayload | None:
        try:
            check = InputValidator()
            slug = check.value(validators.slug, input.slug, "slug")
            name = check.optional(validators.name, input.name, "name", absent=None)
            description = check.optional(
                validators.description, input.description, "description", absent=None
            )
            plan = input.rollout.to_plan(check) if input.rollout else None
            check.raise_errors()

            async def create(session: "WriteSession") -> Any:
                made = await service.create_segment(
                    session, slug=slug, name=name, description=description
                )
                if plan:
                    await rollouts.start_rollout(
                        session,
                        segment_id=made.segment_id,
                        plan=plan,
                        actor=info.context.actor,
                    )
                return made

            row = await info.context.database.transaction(create)
        except errors.MutationRejected as refused:
            return CreateSegmentPayload(segment=None, errors=mutation_errors(refused))
        return CreateSegmentPayload(segment=Segment.from_row(row), errors=[])

    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Change what a segment is called. Needs EDITOR.",
    )
    async def update_segment(
        self,
        info: Info,
        input: UpdateSegmentInput,  # noqa: A002
    ) -> UpdateSegmentPayload | None:
        try:
            check = InputValidator()
            slug = check.value(validators.slug, input.slug, "slug")
            name = check.optional(validators.name, input.name, "name", absent=UNSET)
            description = check.optional(
                validators.description, input.description, "description", absent=UNSET
            )
            version = check.optional(
                validators.version, input.expected_version, "expectedVersion", absent=None
            )
            check.raise_errors()
            row = await info.context.database.transaction(
                lambda session: service.update_segment(
                    session,
                    slug=slug,
                    name=name,
                    description=description,
                    expected_version=version,
                )
            )
        except errors.MutationRejected as refused:
            return UpdateSegmentPayload(segment=None, errors=mutation_errors(refused))
        return UpdateSegmentPayload(segment=Segment.from_row(row), errors=[])

    @strawberry.mutation(
        permission_classes=[NeedsAdmin],
        description="Delete a segment: its memberships end at once for every read, its slug is"
        " free, its history stays. Workers record the leaves. Needs ADMIN.",
    )
    async def delete_segment(
        self,
        info: Info,
        input: DeleteSegmentInput,  # noqa: A002
    ) -> DeleteSegmentPayload | None:
        try:
            check = InputValidator()
            slug = check.value(validators.slug, input.slug, "slug")
            version = check.optional(
                validators.version, input.expected_version, "expectedVersion", absent=None
            )
            check.raise_errors()

            async def delete(session: "WriteSession") -> int:
                number = await service.delete_segment(
                    session, slug=slug, expected_version=version, actor=info.context.actor
                )
                await rollouts.stop_rollout(session, number)
                return number

            number = await info.context.database.transaction(delete)
        except errors.MutationRejected as refused:
            return DeleteSegmentPayload(deleted_id=None, errors=mutation_errors(refused))
        return DeleteSegmentPayload(deleted_id=strawberry.ID(f"seg_{number}"), errors=[])
