"""GraphQL types and the query of explanations."""

from datetime import datetime
from typing import Annotated

import strawberry
from strawberry import Parent

from segmentql import validators
from segmentql.explain.loaders import load_explanation
from segmentql.explain.records import (
    ExplanationReason,
    ExplanationRecord,
)
from segmentql.explain.records import ExplanationStep as StepRecord
from segmentql.explain.records import RolloutPosition as PositionRecord
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import HISTORY_REPLAY, cost
from segmentql.graphql.types.enums import describe_enum
from segmentql.graphql.types.scalars import BigInt
from segmentql.graphql.types.times import AsOf
from segmentql.graphql.types.validation import (
    argument_value,
    check_exactly_one_argument,
    optional_argument,
)
from segmentql.history.api import HistoryEntry
from segmentql.history.records import HistoryEntryRecord
from segmentql.memberships.api import Membership
from segmentql.memberships.records import MembershipRecord
from segmentql.segments.api import Segment
from segmentql.segments.records import SegmentRecord

MAX_STEPS = 8
"""The number of checks of the longest explanation."""

describe_enum(
    ExplanationReason,
    "Why a user is or is not in a segment. The first reason that applies is returned.",
    {
        ExplanationReason.ADDED_BY_HAND: "In: a mutation added the user.",
        ExplanationReason.IMPORTED: "In: an import added the user.",
        ExplanationReason.IN_SAMPLE: "In: a pass of the rollout added the user, who is in its"
        " sample. Or an import would have removed the user, and the rollout kept the user. Or the"
        " rollout added the user, and the pass is not known.",
        ExplanationReason.ENROLLED_WHEN_STORED: "In: the rollout added the user when the user was"
        " stored.",
        ExplanationReason.NO_SUCH_SEGMENT: "Not in: no segment has had the slug.",
        ExplanationReason.SEGMENT_DELETED: "Not in: the segment is deleted.",
        ExplanationReason.USER_NOT_STORED: "Not in: the user is not stored, or no user is known to"
        " have had the key.",
        ExplanationReason.NEVER_ADDED: "Not in: nothing is known to have added the user since"
        " the user was stored, and there is no rollout, or its plan is not known.",
        ExplanationReason.REMOVED_BY_HAND: "Not in: a mutation or an import removed the user.",
        ExplanationReason.EXCLUDED: "Not in: a mutation or an import removed the user, so"
        " rollouts skip the user. The user may never have been a member, and the segment may have"
        " no rollout.",
        ExplanationReason.EXPIRED: "Not in: the TTL of the membership ended.",
        ExplanationReason.ABOVE_BOUND: "Not in: the user is not in the rollout's sample.",
        ExplanationReason.STAGE_NOT_STARTED: "Not in: the first stage of the rollout has not"
        " started.",
        ExplanationReason.PASS_NOT_FINISHED: "Not in: the rollout has not added the user yet, or"
        " its pass is not known.",
        ExplanationReason.NEW_USERS_NOT_ENROLLED: "Not in: the user was stored after the rollout"
        " had selected its users, and the rollout does not enroll new users.",
        ExplanationReason.REMOVED_BY_ROLLOUT: "Not in: the rollout removed the user, because its"
        " percent was lowered or it was withdrawn.",
        ExplanationReason.ROLLOUT_EXPIRED: "Not in: the memberships of the rollout have ended.",
        ExplanationReason.ROLLOUT_PAUSED: "Not in: the rollout was paused before it added the"
        " user.",
        ExplanationReason.ROLLOUT_STOPPED: "Not in: the rollout was cancelled or failed before it"
        " added the user.",
        ExplanationReason.LEFT_WITH_USER: "Not in: the membership ended when the user was deleted.",
    },
)


@strawberry.type(
    description="The position of a user in the order in which a rollout selects users."
)
class RolloutPosition:
    hash: int = strawberry.field(
        graphql_type=BigInt, description="The user's hash for this segment: 0 to 2^48 - 1."
    )
    hash_percent: float = strawberry.field(
        description="The hash as a percentage of the range of hashes."
    )
    bound_hash: int | None = strawberry.field(
        graphql_type=BigInt | None,
        description="The largest hash of the sample. Null if the pass of the stage in force has"
        " no sample yet, or is not known.",
    )
    in_sample: bool = strawberry.field(
        description="Whether the user is in the sample. A user that was stored after the pass"
        " began is in it if the rollout enrolls new users and the hash is low enough."
    )
    percent: float = strawberry.field(description="The percent in force.")
    pass_finished_at: datetime | None = strawberry.field(
        description="When the pass of the stage in force finished. Null if it has not, or if it is"
        " not known."
    )


@strawberry.type(description="A check that led to the reason.")
class ExplanationStep:
    check: str = strawberry.field(description="What was checked.")
    passed: bool = strawberry.field(description="Whether the answer is yes.")
    detail: str = strawberry.field(description="What was found, in a sentence.")


@strawberry.type(description="Why a user is or is not in a segment.")
class Explanation:
    is_in: bool = strawberry.field(description="Whether the user is in the segment.")
    reason: ExplanationReason = strawberry.field(description="The reason.")
    summary: str = strawberry.field(
        description="The reason in one or two sentences, with its time and its API key."
    )
    at: datetime = strawberry.field(
        description="The time that the explanation is about: `asOf`, or else the database's time."
    )
    segment: SegmentRecord | None = strawberry.field(
        graphql_type=Segment | None,
        description="The segment, which may be deleted. Null if no segment has had the slug.",
    )
    since: datetime | None = strawberry.field(
        description="When the user came into this state. Null if it is not known."
    )
    until: datetime | None = strawberry.field(
        description="When this state ends: the end of the membership, or the start of the first"
        " stage. Null if it is not known."
    )
    actor: str | None = strawberry.field(
        description="The name of the API key that caused it, if known."
    )
    membership: MembershipRecord | None = strawberry.field(
        graphql_type=Membership | None,
        description="The membership as it is now. Null if the user is not in the segment, or if"
        " `asOf` is in the past and the membership has ended since.",
    )
    last_entry: HistoryEntryRecord | None = strawberry.field(
        graphql_type=HistoryEntry | None,
        description="The newest entry of the user in this segment at this time, even if the user"
        " was deleted and stored again since.",
    )
    rollout: PositionRecord | None = strawberry.field(
        graphql_type=RolloutPosition | None,
        description="The user's position in the rollout. Null if the user is not stored, if the"
        " segment had no rollout, or if the rollout's plan at this time is not known.",
    )

    @strawberry.field(
        description="The checks in order. More checks can follow the one that decided, to show what"
        " a rollout does with the user.",
        graphql_type=list[ExplanationStep],
        metadata=cost(size=MAX_STEPS),
    )
    @staticmethod
    def steps(explanation: Parent[ExplanationRecord]) -> list[StepRecord]:
        return list(explanation.steps)


@strawberry.type
class ExplanationQueries:
    @strawberry.field(
        description="Why a user is or is not in the segment with a slug, now or at a time in the"
        " past.",
        graphql_type=Explanation | None,
        metadata=cost(HISTORY_REPLAY),
    )
    async def explain(
        self,
        info: Info,
        *,
        user_id: Annotated[
            strawberry.ID | None,
            strawberry.argument(description="The user's id. Use either `userId` or `userKey`."),
        ] = strawberry.UNSET,
        user_key: Annotated[
            str | None,
            strawberry.argument(
                description="The key that the user had at the time, or last before it. The user"
                " may be deleted."
            ),
        ] = strawberry.UNSET,
        slug: Annotated[str, strawberry.argument(description="The slug of a segment.")],
        as_of: AsOf = strawberry.UNSET,
    ) -> ExplanationRecord:
        known_user_id = optional_argument(validators.user_id, user_id, "userId")
        known_user_key = optional_argument(validators.user_key, user_key, "userKey")
        check_exactly_one_argument(("userId", known_user_id), ("userKey", known_user_key))
        return await load_explanation(
            info.context,
            user_id=known_user_id,
            user_key=known_user_key,
            slug=argument_value(validators.slug, slug, "slug"),
            as_of=as_of or None,
        )
