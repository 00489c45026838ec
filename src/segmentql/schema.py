"""The schema: the only list of features."""

import strawberry
from strawberry.schema.config import StrawberryConfig
from strawberry.tools import merge_types

from segmentql.graphql.failures import InvalidInput
from segmentql.graphql.scalars import SCALARS
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

Query = merge_types(
    "Query", (UserQueries, SegmentQueries, HistoryQueries, ReportQueries, KeyQueries)
)
Mutation = merge_types(
    "Mutation",
    (
        UserMutations,
        SegmentMutations,
        MembershipMutations,
        RolloutMutations,
        ReportMutations,
        KeyMutations,
    ),
)


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
