"""The GraphQL input of a rollout's plan, and how it is decoded."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import strawberry

from segmentql import validators
from segmentql.graphql.types.validation import InputValidator
from segmentql.rollouts.plan import Plan, Stage

EITHER_PERCENT_OR_STAGES: Final = "either `percent` or `stages`"


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
