"""GraphQL types of rollouts."""

import asyncio
from datetime import datetime

import strawberry
from strawberry import Parent

from segmentql.graphql.context import Context, Info
from segmentql.graphql.cost.field_cost import SCAN, cost
from segmentql.graphql.types.enums import describe_enum
from segmentql.graphql.types.nodes import register_node
from segmentql.graphql.types.scalars import BigInt
from segmentql.graphql.types.stored_results import register_entity
from segmentql.rollouts.loaders import RolloutBySegment, RolloutCountsBySegment
from segmentql.rollouts.records import RolloutRecord, RolloutStatus, StageRecord, StageStatus
from segmentql.segments.loaders import SegmentById

describe_enum(
    RolloutStatus,
    "The status of a rollout, computed from its schedule and the clock.",
    {
        RolloutStatus.SCHEDULED: "The first stage has not started.",
        RolloutStatus.RUNNING: "Workers are adding or removing members.",
        RolloutStatus.WAITING: "A stage is done, and the next one has not started.",
        RolloutStatus.PAUSED: "The rollout is paused; it can be resumed.",
        RolloutStatus.COMPLETED: "The last stage is done, or `expiresAt` has passed.",
        RolloutStatus.WITHDRAWING: "The rollout is cancelled, and workers are removing the members"
        " that it added.",
        RolloutStatus.CANCELLED: "The rollout was stopped permanently.",
        RolloutStatus.FAILED: "Repeated attempts failed; see `failure`. It can be resumed.",
    },
)

describe_enum(
    StageStatus,
    "The status of a stage.",
    {
        StageStatus.PENDING: "The stage has not started.",
        StageStatus.ACTIVE: "The stage has started and is not done.",
        StageStatus.DONE: "Workers have completed the stage.",
        StageStatus.SKIPPED: "The stage was not completed before the next one started or the"
        " rollout ended.",
    },
)


@strawberry.type(
    description="A stage of a rollout. From `startsAt` on, `percent` % of all users are in the"
    " segment."
)
class RolloutStage:
    percent: float = strawberry.field(description="Percent of all users, 0 to 100.")
    starts_at: datetime = strawberry.field(description="When the stage starts.")
    status: StageStatus = strawberry.field(description="The status of the stage.")


def _rollout_id(rollout: Parent[RolloutRecord]) -> strawberry.ID:
    return strawberry.ID(rollout.global_id)


@strawberry.type(
    description="A plan that puts a percentage of all users into a segment, in stages."
)
class Rollout:
    id: strawberry.ID = strawberry.field(
        resolver=_rollout_id, description="Opaque id. A segment has at most one rollout."
    )

    status: RolloutStatus = strawberry.field(description="The status of the rollout.")

    percent: float = strawberry.field(
        description="The percent in force: that of the current stage. 0 before the first stage,"
        " when the rollout is withdrawn, and after the segment is deleted."
    )
    enroll_new_users: bool = strawberry.field(
        description="Whether new users join when they are stored, at the percent in force. They"
        " also join while the rollout is paused or has failed."
    )
    expires_at: datetime | None = strawberry.field(
        description="When the memberships that the rollout adds end. After that, no user joins."
    )

    stages: list[StageRecord] = strawberry.field(
        graphql_type=list[RolloutStage], description="The stages in order of time."
    )
    users_total: BigInt = strawberry.field(
        description="Number of users that the current pass processes. 0 before they are counted."
    )
    users_seen: BigInt = strawberry.field(
        description="Number of users that the current pass has processed."
    )
    progress: float = strawberry.field(description="Progress of the current pass, 0 to 1.")
    started_at: datetime | None = strawberry.field(
        description="When work on the plan began: on the first stage that was not skipped."
    )
    finished_at: datetime | None = strawberry.field(
        description="When the last stage was done, the rollout was cancelled, or its withdrawal"
        " ended. Otherwise null."
    )
    failure: str | None = strawberry.field(
        description="Why the rollout failed. Null unless the status is FAILED."
    )

    @strawberry.field(
        description="Exact number of active members that the rollout added. It counts them, which"
        " may be slow.",
        metadata=cost(SCAN),
    )
    @staticmethod
    async def enrolled(rollout: Parent[RolloutRecord], info: Info) -> BigInt:
        counts = await info.context.loader(RolloutCountsBySegment).load(rollout.segment_id)
        return BigInt(counts.enrolled)

    @strawberry.field(
        description="Number of users who were removed manually and are excluded from the rollout.",
        metadata=cost(SCAN),
    )
    @staticmethod
    async def excluded(rollout: Parent[RolloutRecord], info: Info) -> BigInt:
        counts = await info.context.loader(RolloutCountsBySegment).load(rollout.segment_id)
        return BigInt(counts.excluded)


async def _existing_rollout(context: Context, segment_id: int) -> RolloutRecord | None:
    """Return the rollout of a segment; None if the segment was deleted."""
    segment, rollout = await asyncio.gather(
        context.loader(SegmentById).load(segment_id),
        context.loader(RolloutBySegment).load(segment_id),
    )
    return rollout if segment else None


register_entity(RolloutRecord, "rollout", lambda rollout: rollout.segment_id, _existing_rollout)
register_node(
    Rollout,
    RolloutRecord,
    "rol_",
    lambda info, segment_id: _existing_rollout(info.context, segment_id),
)
