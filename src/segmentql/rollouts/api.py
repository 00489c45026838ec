"""GraphQL of rollouts."""

import enum
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

import strawberry

from segmentql import errors, values
from segmentql.adapters.database import WriteSession
from segmentql.graphql.context import Info
from segmentql.graphql.costs import SCAN, cost
from segmentql.graphql.failures import (
    ErrorCode,
    InputCheck,
    MutationError,
    as_mutation_error,
    mutation_errors,
)
from segmentql.graphql.permissions import NeedsEditor
from segmentql.rollouts import service
from segmentql.rollouts.loaders import RolloutCounts
from segmentql.rollouts.plan import Plan, Stage
from segmentql.segments.api import Segment


@strawberry.enum(description="What a rollout is doing, by its schedule and the clock.")
class RolloutStatus(enum.Enum):
    SCHEDULED = strawberry.enum_value("SCHEDULED", description="Its first stage lies ahead.")
    RUNNING = strawberry.enum_value(
        "RUNNING", description="Workers are putting users in, or taking them out."
    )
    WAITING = strawberry.enum_value(
        "WAITING", description="A stage is carried out, the next one lies ahead."
    )
    PAUSED = strawberry.enum_value("PAUSED", description="Somebody paused it; it can be resumed.")
    COMPLETED = strawberry.enum_value(
        "COMPLETED", description="Its last stage is carried out, or its `expiresAt` has passed."
    )
    WITHDRAWING = strawberry.enum_value(
        "WITHDRAWING",
        description="It is cancelled, and workers are taking out whom it had brought in.",
    )
    CANCELLED = strawberry.enum_value("CANCELLED", description="Somebody stopped it for good.")
    FAILED = strawberry.enum_value(
        "FAILED", description="Workers tried and failed; see `failure`. It can be resumed."
    )


@strawberry.enum(description="What became of a stage.")
class StageStatus(enum.Enum):
    PENDING = strawberry.enum_value("PENDING", description="It lies ahead.")
    ACTIVE = strawberry.enum_value("ACTIVE", description="It is due and being carried out.")
    DONE = strawberry.enum_value("DONE", description="It was carried out.")
    SKIPPED = strawberry.enum_value(
        "SKIPPED",
        description="It was not carried out: the next one was due before, or the rollout ended.",
    )


@strawberry.type(description="From a moment on, so many percent of all users are in.")
class RolloutStage:
    percent: float = strawberry.field(description="Of all users, 0 to 100.")
    starts_at: datetime = strawberry.field(description="When it starts.")
    status: StageStatus = strawberry.field(description="What became of it.")


@strawberry.type(description="A segment's plan that a percent of all users is in, in stages.")
class Rollout:
    id: strawberry.ID = strawberry.field(description="Opaque; a segment has one rollout at most.")
    status: RolloutStatus = strawberry.field(description="What it is doing.")
    percent: float = strawberry.field(
        description="The goal in force now: that of the stage that is due, 0 before the first one"
        " and once it is withdrawn."
    )
    enroll_new_users: bool = strawberry.field(
        description="Whether users stored later join at once, at the percent in force. They also do"
        " while the rollout is paused."
    )
    expires_at: datetime | None = strawberry.field(
        description="When the memberships that it brings in end; nobody joins after it."
    )
    stages: list[RolloutStage] = strawberry.field(description="The plan, in order of time.")
    users_total: int = strawberry.field(
        description="Of the pass under way: how many users it goes through. 0 before they are"
        " counted."
    )
    users_seen: int = strawberry.field(
        description="Of the pass under way: how many users it has gone through."
    )
    progress: float = strawberry.field(description="Of the pass under way: 0 to 1.")
    started_at: datetime | None = strawberry.field(
        description="When work on the plan's first stage began."
    )
    finished_at: datetime | None = strawberry.field(
        description="When the last stage was carried out, or the rollout was cancelled."
    )
    failure: str | None = strawberry.field(description="Why it failed; null unless it did.")
    number: strawberry.Private[int]

    @classmethod
    def from_row(cls, row: Any) -> "Rollout":
        return cls(
            id=strawberry.ID(f"rol_{row.segment_id}"),
            status=RolloutStatus(row.status),
            percent=float(row.percent),
            enroll_new_users=row.enroll_new_users,
            expires_at=row.expires_at,
            stages=_stages(row),
            users_total=row.users_total,
            users_seen=row.users_seen,
            progress=row.progress,
            started_at=row.started_at,
            finished_at=row.finished_at,
            failure=row.failure,
            number=row.segment_id,
        )

    @strawberry.field(
        description="How many active members it has brought in, exactly; it costs what counting"
        " them costs.",
        metadata=cost(SCAN),
    )
    async def enrolled(self, info: Info) -> int:
        return int((await info.context.loader(RolloutCounts).load(self.number)).enrolled)

    @strawberry.field(
        description="How many users were taken out of the segment by hand.", metadata=cost(SCAN)
    )
    async def excluded(self, info: Info) -> int:
        return int((await info.context.loader(RolloutCounts).load(self.number)).excluded)


def _stages(row: Any) -> list[RolloutStage]:
    stages = zip(row.percents, row.starts, row.dones, strict=True)
    return [
        RolloutStage(
            percent=float(percent),
            starts_at=start,
            status=StageStatus.DONE if done else _undone(row, number),
        )
        for number, (percent, start, done) in enumerate(stages, start=1)
    ]


def _undone(row: Any, number: int) -> StageStatus:
    """What became of a stage that was not carried out."""
    ended = row.status in {"CANCELLED", "COMPLETED"} or row.withdrawn
    if ended or number < row.current:
        return StageStatus.SKIPPED
    return StageStatus.ACTIVE if number == row.current else StageStatus.PENDING


@strawberry.type(description="The segment has no rollout.")
class RolloutNotFound(MutationError):
    pass


@strawberry.type(description="The rollout's status does not allow this.")
class RolloutStateConflict(MutationError):
    status: RolloutStatus = strawberry.field(description="The rollout's status now.")


@as_mutation_error.register
def _(refusal: errors.RolloutNotFound) -> MutationError:
    return RolloutNotFound(
        code=ErrorCode.ROLLOUT_NOT_FOUND,
        message=f"Segment {refusal.slug} has no rollout.",
        path=list(refusal.path),
    )


@as_mutation_error.register
def _(refusal: errors.RolloutStateConflict) -> MutationError:
    return RolloutStateConflict(
        code=ErrorCode.ROLLOUT_STATE_CONFLICT,
        message=f"The rollout is {refusal.status}, which does not allow this.",
        path=list(refusal.path),
        status=RolloutStatus(refusal.status),
    )


@strawberry.input(description="From a moment on, so many percent of all users are in.")
class RolloutStageInput:
    percent: float = strawberry.field(description="Of all users: 0 to 100, up to three decimals.")
    starts_at: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="When it starts: later than the stage before. A first stage without a time"
        " starts now.",
    )
    after_seconds: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="It starts so long after the stage before, or a first stage after now; instead"
        " of `startsAt`.",
    )


@strawberry.input(description="Who is to be in: `percent`, or `stages`.")
class RolloutInput:
    percent: float | None = strawberry.field(
        default=strawberry.UNSET,
        description="Of all users, from now on: 0 to 100, up to three decimals.",
    )
    stages: list[RolloutStageInput] | None = strawberry.field(
        default=strawberry.UNSET,
        description="1 to 50 stages in order of time; percents may fall. Before the first one"
        " nobody is in, also nobody of an earlier plan.",
    )
    enroll_new_users: bool | None = strawberry.field(
        default=True,
        description="Whether users stored later join at once, at the percent in force.",
    )
    expires_at: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="When the memberships that it brings in end, after the last stage. It also"
        " becomes the end of those that an earlier plan brought in.",
    )

    def plan(self, check: InputCheck) -> Plan:
        """Decode `rollout` of a mutation's input; after a refusal the plan is not to be used."""
        stages: list[Stage] = []
        if _given(self.percent) and _given(self.stages):
            check.refuse("`percent` is given too", "one of the two", "rollout", "stages")
        elif _given(self.percent):
            stages = [Stage(check.value(values.percent, self.percent, "rollout", "percent"))]
        elif _given(self.stages):
            stages = _decoded(check, self.stages or [])
        else:
            check.refuse("neither `percent` nor `stages` is given", "one of the two", "rollout")
        return Plan(
            stages=stages,
            enroll_new_users=self.enroll_new_users is not False,
            expires_at=self.expires_at or None,
        )


def _given(value: object) -> bool:
    return value is not None and value is not strawberry.UNSET


def _decoded(check: InputCheck, stages: Sequence[RolloutStageInput]) -> list[Stage]:
    if not 1 <= len(stages) <= values.MAX_STAGES:
        check.refuse(
            f"{len(stages)} stages", f"1 to {values.MAX_STAGES} stages", "rollout", "stages"
        )
        return []
    return [_stage(check, stage, position) for position, stage in enumerate(stages)]


def _stage(check: InputCheck, stage: RolloutStageInput, position: int) -> Stage:
    path = ("rollout", "stages", str(position))
    if _given(stage.starts_at) and _given(stage.after_seconds):
        check.refuse("`startsAt` is given too", "at most one of the two", *path, "afterSeconds")
    elif position > 0 and not _given(stage.starts_at) and not _given(stage.after_seconds):
        check.refuse("a stage after the first needs a time", "`startsAt` or `afterSeconds`", *path)
    return Stage(
        percent=check.value(values.percent, stage.percent, *path, "percent"),
        starts_at=stage.starts_at or None,
        after=check.optional(values.after, stage.after_seconds, *path, "afterSeconds", absent=None),
    )


@strawberry.input(description="Which segment gets which plan.")
class SetRolloutInput:
    slug: str = strawberry.field(description="Which segment.")
    rollout: RolloutInput = strawberry.field(
        description="The plan; it replaces the one before, whatever became of that."
    )
    expected_version: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="Refuse unless the segment is at this version.",
    )


@strawberry.input(description="Which rollout to pause.")
class PauseRolloutInput:
    slug: str = strawberry.field(description="Which segment's.")


@strawberry.input(description="Which rollout to resume.")
class ResumeRolloutInput:
    slug: str = strawberry.field(description="Which segment's.")


@strawberry.input(description="Which rollout to stop for good.")
class CancelRolloutInput:
    slug: str = strawberry.field(description="Which segment's.")
    withdraw: bool | None = strawberry.field(
        default=False,
        description="Take out whom it brought in; otherwise everybody who is in stays.",
    )


@strawberry.type(description="What `setRollout` did.")
class SetRolloutPayload:
    segment: Segment | None = strawberry.field(description="The segment; null when refused.")
    rollout: Rollout | None = strawberry.field(description="Its rollout; null when refused.")
    errors: list[MutationError] = strawberry.field(
        description="Why it was refused.", metadata=cost(size=1)
    )


@strawberry.type(description="What `pauseRollout` did.")
class PauseRolloutPayload:
    segment: Segment | None = strawberry.field(description="The segment; null when refused.")
    rollout: Rollout | None = strawberry.field(description="Its rollout; null when refused.")
    errors: list[MutationError] = strawberry.field(
        description="Why it was refused.", metadata=cost(size=1)
    )


@strawberry.type(description="What `resumeRollout` did.")
class ResumeRolloutPayload:
    segment: Segment | None = strawberry.field(description="The segment; null when refused.")
    rollout: Rollout | None = strawberry.field(description="Its rollout; null when refused.")
    errors: list[MutationError] = strawberry.field(
        description="Why it was refused.", metadata=cost(size=1)
    )


@strawberry.type(description="What `cancelRollout` did.")
class CancelRolloutPayload:
    segment: Segment | None = strawberry.field(description="The segment; null when refused.")
    rollout: Rollout | None = strawberry.field(description="Its rollout; null when refused.")
    errors: list[MutationError] = strawberry.field(
        description="Why it was refused.", metadata=cost(size=1)
    )


Changed: TypeAlias = Awaitable[tuple[Any, Any]]
"""The rows of a segment and of its rollout, once a change is made."""

P = TypeVar("P", SetRolloutPayload, PauseRolloutPayload, ResumeRolloutPayload, CancelRolloutPayload)


async def _answer(
    info: Info, payload: type[P], check: InputCheck, change: Callable[[WriteSession], Changed]
) -> P:
    """Run a change of a rollout whose input is decoded, and tell what came of it."""
    try:
        check.done()
        segment, rollout = await info.context.database.transaction(change)
    except errors.Refused as refused:
        return payload(segment=None, rollout=None, errors=mutation_errors(refused))
    return payload(segment=Segment.from_row(segment), rollout=Rollout.from_row(rollout), errors=[])


@strawberry.type
class RolloutMutations:
    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Give a segment a plan that a percent of all users is in. It begins at once, or"
        " when its first stage is due; workers carry it out. Needs EDITOR.",
    )
    async def set_rollout(
        self,
        info: Info,
        input: SetRolloutInput,  # noqa: A002
    ) -> SetRolloutPayload | None:
        check = InputCheck()
        slug = check.value(values.slug, input.slug, "slug")
        plan = input.rollout.plan(check)
        version = check.optional(
            values.version, input.expected_version, "expectedVersion", absent=None
        )
        return await _answer(
            info,
            SetRolloutPayload,
            check,
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
        description="Hold a rollout: the pass under way stops within a chunk, and the stages ahead"
        " are put off by as long as the pause lasts. Needs EDITOR.",
    )
    async def pause_rollout(
        self,
        info: Info,
        input: PauseRolloutInput,  # noqa: A002
    ) -> PauseRolloutPayload | None:
        check = InputCheck()
        slug = check.value(values.slug, input.slug, "slug")
        return await _answer(
            info,
            PauseRolloutPayload,
            check,
            lambda session: service.pause_rollout(session, slug=slug),
        )

    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Go on where a rollout was paused, or where it failed. Needs EDITOR.",
    )
    async def resume_rollout(
        self,
        info: Info,
        input: ResumeRolloutInput,  # noqa: A002
    ) -> ResumeRolloutPayload | None:
        check = InputCheck()
        slug = check.value(values.slug, input.slug, "slug")
        return await _answer(
            info,
            ResumeRolloutPayload,
            check,
            lambda session: service.resume_rollout(session, slug=slug),
        )

    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Stop a rollout for good. Who is in stays, unless it is withdrawn."
        " Needs EDITOR.",
    )
    async def cancel_rollout(
        self,
        info: Info,
        input: CancelRolloutInput,  # noqa: A002
    ) -> CancelRolloutPayload | None:
        check = InputCheck()
        slug = check.value(values.slug, input.slug, "slug")
        return await _answer(
            info,
            CancelRolloutPayload,
            check,
            lambda session: service.cancel_rollout(
                session, slug=slug, withdraw=bool(input.withdraw)
            ),
        )
