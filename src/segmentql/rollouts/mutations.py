"""GraphQL mutations of rollouts, with their inputs, payloads and errors."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import strawberry

from segmentql import errors, validators
from segmentql.adapters.sessions import WriteSession
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import SCAN, USER_SCAN, cost
from segmentql.graphql.types.errors import ErrorCode, MutationError, as_mutation_error
from segmentql.graphql.types.mutations import DRY_RUN, run_mutation
from segmentql.graphql.types.permissions import NeedsEditor
from segmentql.graphql.types.scalars import BigInt
from segmentql.graphql.types.stored_results import NOT_STORED
from segmentql.graphql.types.validation import InputValidator
from segmentql.rollouts import service
from segmentql.rollouts.api import Rollout
from segmentql.rollouts.forecast import RolloutForecaster
from segmentql.rollouts.inputs import RolloutInput
from segmentql.rollouts.records import RolloutRecord, RolloutStatus
from segmentql.segments.api import Segment
from segmentql.segments.records import SegmentRecord

NULL_FORECAST: Final = (
    "Null outside a dry run, if the mutation was rejected, or if counting takes longer than 10"
    " seconds."
)


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
    dry_run: bool | None = strawberry.field(default=False, description=DRY_RUN)


@strawberry.input(description="Input of `pauseRollout`.")
class PauseRolloutInput:
    slug: str = strawberry.field(description="The slug of the segment.")
    dry_run: bool | None = strawberry.field(default=False, description=DRY_RUN)


@strawberry.input(description="Input of `resumeRollout`.")
class ResumeRolloutInput:
    slug: str = strawberry.field(description="The slug of the segment.")
    dry_run: bool | None = strawberry.field(default=False, description=DRY_RUN)


@strawberry.input(description="Input of `cancelRollout`.")
class CancelRolloutInput:
    slug: str = strawberry.field(description="The slug of the segment.")
    withdraw: bool | None = strawberry.field(
        default=False,
        description="Whether to remove the members that the rollout added. Otherwise they stay.",
    )
    dry_run: bool | None = strawberry.field(default=False, description=DRY_RUN)


@strawberry.type
class RolloutPayload:
    """The fields of the payloads of all mutations of rollouts."""

    segment: SegmentRecord | None = strawberry.field(
        default=None,
        graphql_type=Segment | None,
        description="The segment. Null if the mutation was rejected or was a dry run.",
    )
    rollout: RolloutRecord | None = strawberry.field(
        default=None,
        graphql_type=Rollout | None,
        description="The rollout. Null if the mutation was rejected or was a dry run.",
    )
    errors: list[MutationError] = strawberry.field(
        default_factory=list,
        description="Why the mutation was rejected. Empty if it succeeded.",
        metadata=cost(size=1),
    )


@strawberry.type(description="Result of `setRollout`.")
class SetRolloutPayload(RolloutPayload):
    joining: BigInt | None = strawberry.field(
        default=None,
        metadata=NOT_STORED,
        description="In a dry run, the number of users who join until the last stage is done: users"
        " of the last stage's sample who are not excluded and who are not members now, or leave"
        f" before. {NULL_FORECAST}",
    )
    leaving: BigInt | None = strawberry.field(
        default=None,
        metadata=NOT_STORED,
        description="In a dry run, the number of members who leave until the last stage is done,"
        " also if they join again later: members that a rollout added and that are outside the"
        " sample of a stage that does not raise the percent. If the first stage starts later, all"
        f" members that the previous rollout added leave before it. {NULL_FORECAST}",
    )


@strawberry.type(description="Result of `pauseRollout`.")
class PauseRolloutPayload(RolloutPayload):
    pass


@strawberry.type(description="Result of `resumeRollout`.")
class ResumeRolloutPayload(RolloutPayload):
    pass


@strawberry.type(description="Result of `cancelRollout`.")
class CancelRolloutPayload(RolloutPayload):
    joining: BigInt | None = strawberry.field(
        default=None,
        metadata=NOT_STORED,
        description="In a dry run 0. Null if `leaving` is null.",
    )
    leaving: BigInt | None = strawberry.field(
        default=None,
        metadata=NOT_STORED,
        description="In a dry run, the number of members that the rollout added if `withdraw` is"
        f" true, otherwise 0. {NULL_FORECAST}",
    )


P = TypeVar("P", bound=RolloutPayload)
F = TypeVar("F", SetRolloutPayload, CancelRolloutPayload)


async def _run_mutation(
    info: Info,
    payload: type[P],
    validator: InputValidator,
    work: Callable[[WriteSession], Awaitable[tuple[SegmentRecord, RolloutRecord]]],
    *,
    dry_run: bool | None,
    preview: Callable[[tuple[SegmentRecord, RolloutRecord]], Awaitable[P]] | None = None,
) -> P:
    """Run a mutation whose payload has a segment and its rollout."""
    return await run_mutation(
        info,
        payload,
        validator,
        work,
        lambda result: payload(segment=result[0], rollout=result[1]),
        dry_run=dry_run,
        preview=preview,
    )


async def _run_with_forecast(
    info: Info,
    payload: type[F],
    validator: InputValidator,
    work: Callable[[WriteSession], Awaitable[tuple[SegmentRecord, RolloutRecord]]],
    *,
    dry_run: bool | None,
) -> F:
    """Run a mutation whose dry run also has a forecast, made after the transaction has ended."""

    async def preview(result: tuple[SegmentRecord, RolloutRecord]) -> F:
        forecast = await info.context.feature(RolloutForecaster).forecast(
            result[1], key_id=info.context.principal.key_id
        )
        if forecast is None:
            return payload()
        return payload(joining=BigInt(forecast.joining), leaving=BigInt(forecast.leaving))

    return await _run_mutation(info, payload, validator, work, dry_run=dry_run, preview=preview)


@strawberry.type
class RolloutMutations:
    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        metadata=cost(if_true={"dryRun": USER_SCAN}),
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
        return await _run_with_forecast(
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
            dry_run=input.dry_run,
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
            dry_run=input.dry_run,
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
            dry_run=input.dry_run,
        )

    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        metadata=cost(if_true={"dryRun": SCAN}),
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
        return await _run_with_forecast(
            info,
            CancelRolloutPayload,
            validator,
            lambda session: service.cancel_rollout(
                session, slug=slug, withdraw=bool(input.withdraw), actor=info.context.actor
            ),
            dry_run=input.dry_run,
        )
