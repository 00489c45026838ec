"""GraphQL types and queries of segments."""

from collections.abc import Awaitable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry
from strawberry import Parent

from segmentql import validators
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import SCAN, SEGMENT_REPLAY, cost
from segmentql.graphql.types.nodes import register_node
from segmentql.graphql.types.pagination import (
    After,
    Connection,
    First,
    is_row_id,
    is_slug,
    parse_page_arguments,
)
from segmentql.graphql.types.scalars import BigInt
from segmentql.graphql.types.stored_results import register_entity
from segmentql.graphql.types.times import AsOf, check_time_range
from segmentql.graphql.types.validation import optional_argument, size_argument
from segmentql.history.loaders import MemberCountAsOf, MemberCounts
from segmentql.history.records import MemberCountRecord, MemberCountSeries
from segmentql.memberships.loaders import MemberCount, MemberPages
from segmentql.memberships.records import MembershipRecord, MembersPage
from segmentql.rollouts.loaders import RolloutBySegment
from segmentql.rollouts.records import RolloutRecord
from segmentql.segments.loaders import SegmentById, SegmentBySlug
from segmentql.segments.pages import segment_page
from segmentql.segments.records import SegmentPage, SegmentRecord

if TYPE_CHECKING:
    from segmentql.memberships.api import Membership
    from segmentql.rollouts.api import Rollout


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
    async def member_counts(
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
    ) -> list[MemberCountRecord]:
        size = size_argument(
            points,
            "points",
            default=validators.DEFAULT_COUNT_POINTS,
            maximum=validators.MAX_COUNT_POINTS,
        )
        check_time_range(from_, to)
        series = MemberCountSeries(segment.segment_id, since=from_, until=to, points=size)
        return await info.context.loader(MemberCounts).load(series)

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
        includes_deleted = bool(include_deleted)  # null means false
        page = parse_page_arguments(
            "segments with deleted ones" if includes_deleted else "segments",
            (is_slug, is_row_id) if includes_deleted else (is_slug,),
            first,
            after,
            filters=(known_prefix, known_search),
        )
        last_slug, last_id = (*(page.after or ("",)), 0)[:2]
        segments = await info.context.read(
            lambda session: segment_page(
                session,
                SegmentPage(
                    rows=page.first + 1,
                    after_slug=str(last_slug),
                    after_id=int(last_id),
                    prefix=known_prefix,
                    search=known_search,
                    include_deleted=includes_deleted,
                ),
            )
        )
        return page.page(
            segments,
            lambda segment: (
                (segment.slug, segment.segment_id) if includes_deleted else (segment.slug,)
            ),
        )


register_entity(
    SegmentRecord,
    "segment",
    lambda segment: segment.segment_id,
    lambda context, key: context.loader(SegmentById).load(key),
)
register_node(
    Segment,
    SegmentRecord,
    "seg_",
    lambda info, segment_id: info.context.loader(SegmentById).load(segment_id),
)
