"""GraphQL types and mutations of rollouts."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final, TypeVar

import strawberry
from strawberry import Parent

from segmentql import errors, validators
from segmentql.adapters.database import WriteSession
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import SCAN, cost
from segmentql.graphql.types.enums import describe_enum
from segmentql.graphql.types.errors import ErrorCode, MutationError, as_mutation_error
from segmentql.graphql.types.mutations import run_mutation
from segmentql.graphql.types.permissions import NeedsEditor
from segmentql.graphql.types.scalars import BigInt
from segmentql.graphql.types.validation import InputValidator
from segmentql.rollouts import service
from segmentql.rollouts.loaders import RolloutCountsBySegment
from segmentql.rollouts.plan import Plan, Stage
from segmentql.rollouts.records import RolloutRecord, RolloutStatus, StageRecord, StageStatus
from segmentql.segments.api import Segment
from segmentql.segments.records import SegmentRecord

EITHER_PERCENT_OR_STAGES: Final = "either `percent` or `stages`"

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


@strawberry.type(description="The segment has no rollout.")
class RolloutNotFound(MutationError):
    pass


@strawberry.type(description="The rollout's status does not allow this change.")
class RolloutStateConflict(MutationError):
    status: RolloutStatus = strawberry.field(description="The current status of the rollout.")


@as_mutation_error.register
def _(reason: errors.RolloutNotFound) -> MutationError:
    return RolloutNotFound(
        code=ErrorCode.ROLLOUT_NOT_FOUND,
        message=f'The segment "{reason.slug}" has no rollout.',
        path=list(reason.path),
    )


@as_mutation_error.register
def _(reason: errors.RolloutStateConflict) -> MutationError:
    return RolloutStateConflict(
        code=ErrorCode.ROLLOUT_STATE_CONFLICT,
        message=f"The rollout's status {reason.status} does not allow this change.",
        path=list(reason.path),
        status=RolloutStatus(reason.status),
    )


@strawberry.input(
    description="A stage of a rollout. From `startsAt` on, `percent` % of all users are in the"
    " segment."
)
class RolloutStageInput:
    percent: float = strawberry.field(
        description="Percent of all users: 0 to 100, up to three decimals."
    )
    starts_at: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="When the stage starts, which must be after the previous stage. If the first"
        " stage has neither `startsAt` nor `afterSeconds`, it starts now.",
    )
    after_seconds: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="Seconds from the start of the previous stage to the start of this one. For the"
        " first stage: seconds from now. Use it instead of `startsAt`.",
    )


@strawberry.input(description="The plan of a rollout: either `percent` or `stages`.")
class RolloutInput:
    percent: float | None = strawberry.field(
        default=strawberry.UNSET,
        description="Percent of all users, from now on: 0 to 100, up to three decimals.",
    )
    stages: list[RolloutStageInput] | None = strawberry.field(
        default=strawberry.UNSET,
        description="1 to 50 stages in order of time. Percents may fall. Before the first stage the"
        " rollout has no members, and members of an earlier plan are removed.",
    )
    enroll_new_users: bool | None = strawberry.field(
        default=True,
        description="Whether new users join when they are stored, at the percent in force.",
    )
    expires_at: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="When the memberships that the rollout adds end. It must be after the last"
        " stage starts. It also applies to memberships that an earlier plan added.",
    )

    def to_plan(self, validator: InputValidator) -> Plan:
        """Validate and decode the argument `rollout`.

        If the validator has found an error, the plan is not valid.
        """
        stages: list[Stage] = []
        if _is_set(self.percent) and _is_set(self.stages):
            validator.add_error(
                "both `percent` and `stages` are set", EITHER_PERCENT_OR_STAGES, "rollout", "stages"
            )
        elif _is_set(self.percent):
            stages = [
                Stage(validator.value(validators.percent, self.percent, "rollout", "percent"))
            ]
        elif _is_set(self.stages):
            stages = _decode_stages(validator, self.stages or [])
        else:
            validator.add_error(
                "neither `percent` nor `stages` is set", EITHER_PERCENT_OR_STAGES, "rollout"
            )
        return Plan(
            stages=stages,
            enroll_new_users=self.enroll_new_users is not False,
            expires_at=self.expires_at or None,
        )


def _is_set(value: object) -> bool:
    return value is not None and value is not strawberry.UNSET


def _decode_stages(validator: InputValidator, stages: Sequence[RolloutStageInput]) -> list[Stage]:
    if not 1 <= len(stages) <= validators.MAX_STAGES:
        validator.add_error(
            f"{len(stages)} stages", f"1 to {validators.MAX_STAGES} stages", "rollout", "stages"
        )
        return []
    return [_decode_stage(validator, stage, position) for position, stage in enumerate(stages)]


def _decode_stage(validator: InputValidator, stage: RolloutStageInput, position: int) -> Stage:
    path = ("rollout", "stages", str(position))
    if _is_set(stage.starts_at) and _is_set(stage.after_seconds):
        validator.add_error(
            "both `startsAt` and `afterSeconds` are set",
            "at most one of `startsAt` and `afterSeconds`",
            *path,
            "afterSeconds",
        )
    elif position > 0 and not _is_set(stage.starts_at) and not _is_set(stage.after_seconds):
        validator.add_error(
            "the stage is not the first and has no start time",
            "`startsAt` or `afterSeconds`",
            *path,
        )
    return Stage(
        percent=validator.value(validators.percent, stage.percent, *path, "percent"),
        starts_at=stage.starts_at or None,
        after=validator.optional(
            validators.stage_delay, stage.after_seconds, *path, "afterSeconds", absent=None
        ),
    )


@strawberry.input(description="Input of `setRollout`.")
class SetRolloutInput:
    slug: str = strawberry.field(description="The slug of the segment.")
    rollout: RolloutInput = strawberry.field(
        description="The new plan. It replaces the previous one, whatever its status."
    )
    expected_version: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="If set, the mutation is rejected unless the segment has this version.",
    )


@strawberry.input(description="Input of `pauseRollout`.")
class PauseRolloutInput:
    slug: str = strawberry.field(description="The slug of the segment.")


@strawberry.input(description="Input of `resumeRollout`.")
class ResumeRolloutInput:
    slug: str = strawberry.field(description="The slug of the segment.")


@strawberry.input(description="Input of `cancelRollout`.")
class CancelRolloutInput:
    slug: str = strawberry.field(description="The slug of the segment.")
    withdraw: bool | None = strawberry.field(
        default=False,
        description="Whether to remove the members that the rollout added. Otherwise they stay.",
    )


@strawberry.type
class RolloutPayload:
    """The fields of the payloads of all mutations of rollouts."""

    segment: SegmentRecord | None = strawberry.field(
        default=None,
        graphql_type=Segment | None,
        description="The segment. Null if the mutation was rejected.",
    )
    rollout: RolloutRecord | None = strawberry.field(
        default=None,
        graphql_type=Rollout | None,
        description="The rollout. Null if the mutation was rejected.",
    )
    errors: list[MutationError] = strawberry.field(
        default_factory=list,
        description="Why the mutation was rejected. Empty if it succeeded.",
        metadata=cost(size=1),
    )


@strawberry.type(description="Result of `setRollout`.")
class SetRolloutPayload(RolloutPayload):
    pass


@strawberry.type(description="Result of `pauseRollout`.")
class PauseRolloutPayload(RolloutPayload):
    pass


@strawberry.type(description="Result of `resumeRollout`.")
class ResumeRolloutPayload(RolloutPayload):
    pass


@strawberry.type(description="Result of `cancelRollout`.")
class CancelRolloutPayload(RolloutPayload):
    pass


P = TypeVar("P", bound=RolloutPayload)


async def _run_mutation(
    info: Info,
    payload: type[P],
    validator: InputValidator,
    work: Callable[[WriteSession], Awaitable[tuple[SegmentRecord, RolloutRecord]]],
) -> P:
    """Run a mutation whose payload has a segment and its rollout."""
    return await run_mutation(
        info,
        payload,
        validator,
        work,
        lambda result: payload(segment=result[0], rollout=result[1]),
    )


@strawberry.type
class RolloutMutations:
    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Put a percentage of all users into a segment. The rollout begins now or when"
        " its first stage starts; workers add and remove the members. Needs EDITOR.",
    )
    async def set_rollout(
        self,
        info: Info,
        input: SetRolloutInput,  # noqa: A002
    ) -> SetRolloutPayload | None:
        validator = InputValidator()
        slug = validator.value(validators.slug, input.slug, "slug")
        plan = input.rollout.to_plan(validator)
        version = validator.optional(
            validators.version, input.expected_version, "expectedVersion", absent=None
        )
        return await _run_mutation(
            info,
            SetRolloutPayload,
            validator,
            lambda session: service.set_rollout(
                session,
                slug=slug,
                plan=plan,
                expected_version=version,
                actor=info.context.actor,
            ),
        )

    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Pause a rollout. The current pass stops after its current chunk, and the"
        " stages that have not started are delayed by the length of the pause. Needs EDITOR.",
    )
    async def pause_rollout(
        self,
        info: Info,
        input: PauseRolloutInput,  # noqa: A002
    ) -> PauseRolloutPayload | None:
        validator = InputValidator()
        slug = validator.value(validators.slug, input.slug, "slug")
        return await _run_mutation(
            info,
            PauseRolloutPayload,
            validator,
            lambda session: service.pause_rollout(session, slug=slug, actor=info.context.actor),
        )

    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Resume a rollout that is paused or has failed. Needs EDITOR.",
    )
    async def resume_rollout(
        self,
        info: Info,
        input: ResumeRolloutInput,  # noqa: A002
    ) -> ResumeRolloutPayload | None:
        validator = InputValidator()
        slug = validator.value(validators.slug, input.slug, "slug")
        return await _run_mutation(
            info,
            ResumeRolloutPayload,
            validator,
            lambda session: service.resume_rollout(session, slug=slug, actor=info.context.actor),
        )

    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Stop a rollout permanently. Its members stay unless `withdraw` is true."
        " Needs EDITOR.",
    )
    async def cancel_rollout(
        self,
        info: Info,
        input: CancelRolloutInput,  # noqa: A002
    ) -> CancelRolloutPayload | None:
        validator = InputValidator()
        slug = validator.value(validators.slug, input.slug, "slug")
        return await _run_mutation(
            info,
            CancelRolloutPayload,
            validator,
            lambda session: service.cancel_rollout(
                session, slug=slug, withdraw=bool(input.withdraw), actor=info.context.actor
            ),
        )
