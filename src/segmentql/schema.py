"""The schema: the only list of features."""

from datetime import date

import strawberry
from strawberry.schema.config import StrawberryConfig

from segmentql.graphql.breaking_changes import breaking_changes
from segmentql.graphql.types.errors import InvalidInput
from segmentql.graphql.types.scalars import SCALARS
from segmentql.history.api import HistoryQueries
from segmentql.keys.api import ApiKeyNotFound, KeyMutations, KeyQueries
from segmentql.memberships.api import MembershipMutations
from segmentql.reports.api import ReportMutations, ReportQueries
from segmentql.rollouts.api import RolloutMutations, RolloutNotFound, RolloutStateConflict
from segmentql.segments.api import (
    SegmentAlreadyExists,
    SegmentMutations,
    SegmentNotFound,
    SegmentQueries,
    VersionConflict,
)
from segmentql.users.api import UserAlreadyExists, UserMutations, UserNotFound, UserQueries


@strawberry.type(description="What can be read.")
class Query(UserQueries, SegmentQueries, HistoryQueries, ReportQueries, KeyQueries):
    pass


@strawberry.type(description="What can be changed: one after the other, each whole or not at all.")
class Mutation(
    UserMutations,
    SegmentMutations,
    MembershipMutations,
    RolloutMutations,
    ReportMutations,
    KeyMutations,
):
    pass


def make_schema() -> strawberry.Schema:
    """Compose the features into one schema."""
    return strawberry.Schema(
        query=Query,
        mutation=Mutation,
        # Reached through the interface alone, so they must be named.
        types=[
            InvalidInput,
            SegmentNotFound,
            SegmentAlreadyExists,
            UserNotFound,
            UserAlreadyExists,
            VersionConflict,
            RolloutNotFound,
            RolloutStateConflict,
            ApiKeyNotFound,
        ],
        config=StrawberryConfig(scalar_map=SCALARS),
    )


def broken_since(released: str, *, on: date | None) -> list[str]:
    """What clients of a released schema, printed, would find broken: a line each.

    From the day `on` that a release names, what it shows as deprecated may be gone.

    Raises:
        BadValue: `released` is no schema.
    """
    return breaking_changes(released, make_schema().as_str(), on=on)
