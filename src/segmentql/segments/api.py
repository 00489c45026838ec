"""GraphQL types, queries and mutations of segments."""

from collections.abc import Awaitable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry
from strawberry import Parent

from segmentql import errors, validators
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import SCAN, SEGMENT_REPLAY, cost
from segmentql.graphql.types.errors import (
    ErrorCode,
    MutationError,
    as_mutation_error,
)
from segmentql.graphql.types.mutations import run_mutation
from segmentql.graphql.types.pagination import (
    After,
    Connection,
    First,
    is_row_id,
    is_slug,
    parse_page_arguments,
)
from segmentql.graphql.types.permissions import NeedsAdmin, NeedsEditor
from segmentql.graphql.types.scalars import BigInt
from segmentql.graphql.types.times import AsOf, check_time_range
from segmentql.graphql.types.validation import InputValidator, optional_argument, size_argument
from segmentql.history.loaders import MemberCountAsOf, MemberCounts
from segmentql.history.records import MemberCountRecord, MemberCountSeries
from segmentql.memberships.loaders import MemberCount, MemberPages
from segmentql.memberships.records import MembershipRecord, MembersPage
from segmentql.rollouts import service as rollouts
from segmentql.rollouts.loaders import RolloutBySegment
from segmentql.rollouts.records import RolloutRecord
from segmentql.segments import service
from segmentql.segments.loaders import SegmentBySlug
from segmentql.segments.records import SegmentPage, SegmentRecord, segment_global_id
from segmentql.segments.service import UNSET

if TYPE_CHECKING:
    from segmentql.memberships.api import Membership
    from segmentql.rollouts.api import Rollout, RolloutInput


@strawberry.type(description="The number of members of a segment at a point in time.")
class MemberCountPoint:
    at: datetime = strawberry.field(description="The point in time.")
    count: BigInt = strawberry.field(
        description="Exact number of members: the users whose `segments(asOf:)` has the segment."
    )


def _segment_id(segment: Parent[SegmentRecord]) -> strawberry.ID:
    return strawberry.ID(segment.global_id)


@strawberry.type(
    description="A named set of users. A segment exists until it is deleted; its history stays."
)
class Segment:
    id: strawberry.ID = strawberry.field(
        resolver=_segment_id, description="Opaque id. It is never reused."
    )

    slug: str = strawberry.field(
        description="The name that programs use. It never changes. After the segment is deleted,"
        " another segment may get the slug."
    )
    name: str | None = strawberry.field(description="The name for people.")
    description: str | None = strawberry.field(
        description="The purpose of the segment.",
        metadata=cost(characters=validators.MAX_DESCRIPTION_LENGTH),
    )
    created_at: datetime = strawberry.field(description="When the segment was created.")
    updated_at: datetime = strawberry.field(
        description="When the name, the description or the rollout's plan was last changed."
    )
    deleted_at: datetime | None = strawberry.field(
        description="When the segment was deleted. Its memberships ended then."
    )
    version: int = strawberry.field(
        description="Starts at 1 and increases by 1 when the name, the description or the rollout's"
        " plan changes. Pausing, resuming or cancelling the rollout does not change it."
    )

    @strawberry.field(
        description="Exact number of members, now or at a past time. It counts them, which may be"
        " slow.",
        graphql_type=BigInt,
        metadata=cost(SCAN, if_given={"asOf": SEGMENT_REPLAY}),
    )
    @staticmethod
    def member_count(
        segment: Parent[SegmentRecord],
        info: Info,
        as_of: AsOf = strawberry.UNSET,
    ) -> Awaitable[int]:
        if as_of:
            return info.context.loader(MemberCountAsOf).load((segment.segment_id, as_of))
        return info.context.loader(MemberCount).load(segment.segment_id)

    @strawberry.field(
        description="Exact numbers of members at points in the past, for a plot. The points are at"
        " equal distances; the first is `from` and the last is `to`. A single point is `to`.",
        graphql_type=list[MemberCountPoint],
        metadata=cost(
            SCAN + SEGMENT_REPLAY,
            size_argument="points",
            max_first=validators.MAX_COUNT_POINTS,
        ),
    )
    @staticmethod
    def member_counts(
        segment: Parent[SegmentRecord],
        info: Info,
        from_: Annotated[
            datetime,
            strawberry.argument(name="from", description="The time of the first point."),
        ],
        to: Annotated[
            datetime,
            strawberry.argument(
                description="The time of the last point: a time in the past, not before `from`."
            ),
        ],
        points: Annotated[
            int | None, strawberry.argument(description="The number of points: 1 to 500.")
        ] = validators.DEFAULT_COUNT_POINTS,
    ) -> Awaitable[list[MemberCountRecord]]:
        size = size_argument(
            points,
            "points",
            default=validators.DEFAULT_COUNT_POINTS,
            maximum=validators.MAX_COUNT_POINTS,
        )
        check_time_range(from_, to)
        series = MemberCountSeries(segment.segment_id, since=from_, until=to, points=size)
        return info.context.loader(MemberCounts).load(series)

    @strawberry.field(
        description="The rollout, which puts a percentage of all users into the segment. Null if"
        " the segment has none.",
        graphql_type=Annotated["Rollout", strawberry.lazy("segmentql.rollouts.api")] | None,
    )
    @staticmethod
    def rollout(segment: Parent[SegmentRecord], info: Info) -> Awaitable[RolloutRecord | None]:
        return info.context.loader(RolloutBySegment).load(segment.segment_id)

    @strawberry.field(
        description="The active memberships, in order of user id.",
        graphql_type=Connection[
            Annotated["Membership", strawberry.lazy("segmentql.memberships.api")]
        ],
    )
    @staticmethod
    async def members(
        segment: Parent[SegmentRecord],
        info: Info,
        first: First = 50,
        after: After = strawberry.UNSET,
    ) -> Connection[MembershipRecord]:
        page = parse_page_arguments(
            "members", (is_row_id,), first, after, filters=(segment.segment_id,)
        )
        last = int(page.after[0]) if page.after else 0
        members = await info.context.loader(MemberPages).load(
            MembersPage(segment.segment_id, after=last, rows=page.first + 1)
        )
        return page.page(members, lambda member: (member.user.user_id,))


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


@strawberry.type
class SegmentQueries:
    @strawberry.field(
        description="The existing segment with a slug. Null if there is none.",
        graphql_type=Segment | None,
    )
    def segment(
        self,
        info: Info,
        slug: Annotated[str, strawberry.argument(description="The segment's slug.")],
    ) -> Awaitable[SegmentRecord | None] | None:
        return info.context.loader(SegmentBySlug).load(slug) if validators.is_slug(slug) else None

    @strawberry.field(
        description="The existing segments in code point order of their slugs. Deleted segments are"
        " listed only if `includeDeleted` is true. If `prefix` and `search` are both set, a segment"
        " must match both.",
        graphql_type=Connection[Segment] | None,
        metadata=cost(if_given={"search": SCAN}),
    )
    async def segments(
        self,
        info: Info,
        first: First = 50,
        after: After = strawberry.UNSET,
        prefix: Annotated[
            str | None,
            strawberry.argument(
                description="Return only segments whose slug begins with this text, which is"
                " case-sensitive. An empty text means no filter."
            ),
        ] = strawberry.UNSET,
        search: Annotated[
            str | None,
            strawberry.argument(
                description="Return only segments whose slug or name contains this text, without"
                " regard to case: up to 255 characters. An empty text means no filter."
            ),
        ] = strawberry.UNSET,
        include_deleted: Annotated[  # noqa: FBT002 - the default of the GraphQL argument
            bool | None,
            strawberry.argument(
                description="Whether to return deleted segments, too. Segments with the same slug"
                " are ordered by their creation, oldest first."
            ),
        ] = False,
    ) -> Connection[SegmentRecord]:
        known_prefix = optional_argument(validators.slug_prefix, prefix, "prefix") or ""
        known_search = optional_argument(validators.search, search, "search") or ""
        with_deleted = bool(include_deleted)
        page = parse_page_arguments(
            "segments with deleted ones" if with_deleted else "segments",
            (is_slug, is_row_id) if with_deleted else (is_slug,),
            first,
            after,
            filters=(known_prefix, known_search),
        )
        last_slug, last_id = (*(page.after or ("",)), 0)[:2]
        segments = await info.context.read(
            lambda session: service.segment_page(
                session,
                SegmentPage(
                    rows=page.first + 1,
                    after_slug=str(last_slug),
                    after_id=int(last_id),
                    prefix=known_prefix,
                    search=known_search,
                    with_deleted=with_deleted,
                ),
            )
        )
        return page.page(
            segments,
            lambda segment: (segment.slug, segment.segment_id) if with_deleted else (segment.slug,),
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
    rollout: Annotated["RolloutInput", strawberry.lazy("segmentql.rollouts.api")] | None = (
        strawberry.field(
            default=strawberry.UNSET,
            description="A rollout, which puts a percentage of all users into the segment.",
        )
    )


@strawberry.type(description="Result of `createSegment`.")
class CreateSegmentPayload:
    segment: SegmentRecord | None = strawberry.field(
        default=None,
        graphql_type=Segment | None,
        description="The segment. Null if the mutation was rejected.",
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
        default=strawberry.UNSET, description="The name for people: 1 to 255 characters."
    )
    description: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The purpose of the segment: up to 4096 characters.",
    )
    expected_version: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="If set, the mutation is rejected unless the segment has this version.",
    )


@strawberry.type(description="Result of `updateSegment`.")
class UpdateSegmentPayload:
    segment: SegmentRecord | None = strawberry.field(
        default=None,
        graphql_type=Segment | None,
        description="The updated segment. Null if the mutation was rejected.",
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


@strawberry.type(description="Result of `deleteSegment`.")
class DeleteSegmentPayload:
    deleted_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="The id of the deleted segment. Null if the mutation was rejected.",
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
        )
