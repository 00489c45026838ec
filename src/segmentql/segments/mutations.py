"""GraphQL mutations of segments, with their inputs, payloads and errors."""

from typing import TYPE_CHECKING, Annotated

import strawberry

from segmentql import errors, validators
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import cost
from segmentql.graphql.types.errors import ErrorCode, MutationError, as_mutation_error
from segmentql.graphql.types.mutations import DRY_RUN, run_mutation
from segmentql.graphql.types.permissions import NeedsAdmin, NeedsEditor
from segmentql.graphql.types.validation import NULL_CLEARS, InputValidator
from segmentql.rollouts import service as rollouts
from segmentql.segments import service
from segmentql.segments.api import Segment
from segmentql.segments.records import SegmentRecord, segment_global_id
from segmentql.segments.service import UNSET

if TYPE_CHECKING:
    from segmentql.rollouts.inputs import RolloutInput


@strawberry.type(description="At least one slug has no segment that exists.")
class SegmentNotFound(MutationError):
    slugs: list[str] = strawberry.field(
        description="The slugs that no existing segment has.",
        metadata=cost(characters=validators.MAX_SLUGS_PER_CHANGE * validators.MAX_SLUG_LENGTH),
    )


@strawberry.type(description="Another segment has the slug.")
class SegmentAlreadyExists(MutationError):
    segment: SegmentRecord = strawberry.field(
        graphql_type=Segment, description="The segment that has the slug."
    )


@strawberry.type(description="The segment does not have the expected version.")
class VersionConflict(MutationError):
    current: SegmentRecord = strawberry.field(
        graphql_type=Segment, description="The current state of the segment."
    )


@as_mutation_error.register
def _(reason: errors.SegmentNotFound) -> MutationError:
    slugs = ", ".join(f'"{slug}"' for slug in reason.slugs)
    return SegmentNotFound(
        code=ErrorCode.SEGMENT_NOT_FOUND,
        message=f"No segment has the slug {slugs}."
        if len(reason.slugs) == 1
        else f"No segment has any of the slugs {slugs}.",
        path=list(reason.path),
        slugs=list(reason.slugs),
    )


@as_mutation_error.register
def _(reason: errors.SegmentAlreadyExists) -> MutationError:
    return SegmentAlreadyExists(
        code=ErrorCode.SEGMENT_ALREADY_EXISTS,
        message=f'A segment with the slug "{reason.segment.slug}" already exists.',
        path=list(reason.path),
        segment=reason.segment,
    )


@as_mutation_error.register
def _(reason: errors.VersionConflict) -> MutationError:
    return VersionConflict(
        code=ErrorCode.VERSION_CONFLICT,
        message=f"The segment has version {reason.current.version},"
        f" but expectedVersion is {reason.expected_version}.",
        path=list(reason.path),
        current=reason.current,
    )


@strawberry.input(description="Input of `createSegment`.")
class CreateSegmentInput:
    slug: str = strawberry.field(
        description="1 to 255 characters: letters A-Z and a-z, digits, `_`, `.` and `-`. The first"
        " is a letter or a digit."
    )
    name: str | None = strawberry.field(
        default=strawberry.UNSET, description="The name for people: 1 to 255 characters."
    )
    description: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The purpose of the segment: up to 4096 characters.",
    )
    rollout: Annotated["RolloutInput", strawberry.lazy("segmentql.rollouts.inputs")] | None = (
        strawberry.field(
            default=strawberry.UNSET,
            description="A rollout, which puts a percentage of all users into the segment.",
        )
    )
    dry_run: bool | None = strawberry.field(default=False, description=DRY_RUN)


@strawberry.type(description="Result of `createSegment`.")
class CreateSegmentPayload:
    segment: SegmentRecord | None = strawberry.field(
        default=None,
        graphql_type=Segment | None,
        description="The segment. Null if the mutation was rejected or was a dry run.",
    )
    errors: list[MutationError] = strawberry.field(
        default_factory=list,
        description="Why the mutation was rejected. Empty if it succeeded.",
        metadata=cost(size=1),
    )


@strawberry.input(
    description="Input of `updateSegment`. An absent field is not changed; null clears a field."
)
class UpdateSegmentInput:
    slug: str = strawberry.field(description="The slug of the segment.")
    name: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The name for people: 1 to 255 characters.",
        metadata=NULL_CLEARS,
    )
    description: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The purpose of the segment: up to 4096 characters.",
        metadata=NULL_CLEARS,
    )
    expected_version: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="If set, the mutation is rejected unless the segment has this version.",
    )
    dry_run: bool | None = strawberry.field(default=False, description=DRY_RUN)


@strawberry.type(description="Result of `updateSegment`.")
class UpdateSegmentPayload:
    segment: SegmentRecord | None = strawberry.field(
        default=None,
        graphql_type=Segment | None,
        description="The updated segment. Null if the mutation was rejected or was a dry run.",
    )
    errors: list[MutationError] = strawberry.field(
        default_factory=list,
        description="Why the mutation was rejected. Empty if it succeeded.",
        metadata=cost(size=1),
    )


@strawberry.input(description="Input of `deleteSegment`.")
class DeleteSegmentInput:
    slug: str = strawberry.field(description="The slug of the segment.")
    expected_version: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="If set, the mutation is rejected unless the segment has this version.",
    )
    dry_run: bool | None = strawberry.field(default=False, description=DRY_RUN)


@strawberry.type(description="Result of `deleteSegment`.")
class DeleteSegmentPayload:
    deleted_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="The id of the deleted segment. Null if the mutation was rejected or was a"
        " dry run.",
    )
    errors: list[MutationError] = strawberry.field(
        default_factory=list,
        description="Why the mutation was rejected. Empty if it succeeded.",
        metadata=cost(size=1),
    )


@strawberry.type
class SegmentMutations:
    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Create a segment. Needs EDITOR.",
    )
    async def create_segment(
        self,
        info: Info,
        input: CreateSegmentInput,  # noqa: A002
    ) -> CreateSegmentPayload | None:
        validator = InputValidator()
        slug = validator.value(validators.slug, input.slug, "slug")
        name = validator.optional(validators.name, input.name, "name", absent=None)
        description = validator.optional(
            validators.description, input.description, "description", absent=None
        )
        plan = input.rollout.to_plan(validator) if input.rollout else None
        return await run_mutation(
            info,
            CreateSegmentPayload,
            validator,
            lambda session: rollouts.create_segment_with_rollout(
                session,
                slug=slug,
                name=name,
                description=description,
                plan=plan,
                actor=info.context.actor,
            ),
            lambda segment: CreateSegmentPayload(segment=segment),
            dry_run=input.dry_run,
        )

    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Change the name or the description of a segment. Needs EDITOR.",
    )
    async def update_segment(
        self,
        info: Info,
        input: UpdateSegmentInput,  # noqa: A002
    ) -> UpdateSegmentPayload | None:
        validator = InputValidator()
        slug = validator.value(validators.slug, input.slug, "slug")
        name = validator.optional(validators.name, input.name, "name", absent=UNSET)
        description = validator.optional(
            validators.description, input.description, "description", absent=UNSET
        )
        version = validator.optional(
            validators.version, input.expected_version, "expectedVersion", absent=None
        )
        return await run_mutation(
            info,
            UpdateSegmentPayload,
            validator,
            lambda session: service.update_segment(
                session,
                slug=slug,
                name=name,
                description=description,
                expected_version=version,
                actor=info.context.actor,
            ),
            lambda segment: UpdateSegmentPayload(segment=segment),
            dry_run=input.dry_run,
        )

    @strawberry.mutation(
        permission_classes=[NeedsAdmin],
        description="Delete a segment. Its memberships end at once for every read, its slug can be"
        " reused, and its history stays. Workers record the leaves. Needs ADMIN.",
    )
    async def delete_segment(
        self,
        info: Info,
        input: DeleteSegmentInput,  # noqa: A002
    ) -> DeleteSegmentPayload | None:
        validator = InputValidator()
        slug = validator.value(validators.slug, input.slug, "slug")
        version = validator.optional(
            validators.version, input.expected_version, "expectedVersion", absent=None
        )
        return await run_mutation(
            info,
            DeleteSegmentPayload,
            validator,
            lambda session: rollouts.delete_segment_with_rollout(
                session, slug=slug, expected_version=version, actor=info.context.actor
            ),
            lambda segment_id: DeleteSegmentPayload(
                deleted_id=strawberry.ID(segment_global_id(segment_id))
            ),
            dry_run=input.dry_run,
        )
