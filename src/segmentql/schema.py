"""The GraphQL schema, composed of the types of all features."""

from collections.abc import Iterator, Sequence
from datetime import date

import strawberry
from strawberry.schema.config import StrawberryConfig

from graphql import GraphQLSchema, get_named_type
from segmentql.audit.api import AuditQueries
from segmentql.explain.api import ExplanationQueries
from segmentql.exports.api import ExportQueries
from segmentql.exports.mutations import ExportMutations
from segmentql.feed.api import FeedQueries, FeedSubscriptions, MembershipEvent
from segmentql.graphql.breaking_changes import breaking_changes
from segmentql.graphql.cost.document_limits import DocumentLimits
from segmentql.graphql.execution.document_cache import DocumentCache, SchemaExposure
from segmentql.graphql.execution.idempotency_keys import declare_idempotent
from segmentql.graphql.types.errors import InvalidInput
from segmentql.graphql.types.nodes import NodeQueries, declare_nodes
from segmentql.graphql.types.scalars import SCALARS
from segmentql.history.api import HistoryQueries
from segmentql.idempotency.api import IdempotencyKeyReused
from segmentql.imports.api import ImportQueries
from segmentql.imports.mutations import ImportMutations
from segmentql.imports.payloads import ImportNotFound, ImportStateConflict
from segmentql.keys.api import ApiKeyNotFound, KeyMutations, KeyQueries
from segmentql.memberships.mutations import MembershipMutations
from segmentql.reports.api import ReportMutations, ReportQueries
from segmentql.rollouts.mutations import RolloutMutations, RolloutNotFound, RolloutStateConflict
from segmentql.segments.api import SegmentQueries
from segmentql.segments.mutations import (
    SegmentAlreadyExists,
    SegmentMutations,
    SegmentNotFound,
    VersionConflict,
)
from segmentql.settings import Settings
from segmentql.users.api import UserQueries
from segmentql.users.mutations import UserAlreadyExists, UserMutations, UserNotFound


@strawberry.type(description="The queries.")
class Query(
    UserQueries,
    SegmentQueries,
    HistoryQueries,
    ReportQueries,
    ImportQueries,
    ExportQueries,
    ExplanationQueries,
    KeyQueries,
    AuditQueries,
    FeedQueries,
    NodeQueries,
):
    pass


@strawberry.type(
    description="The mutations. They are executed in order, each completely or not at all."
)
class Mutation(
    UserMutations,
    SegmentMutations,
    MembershipMutations,
    RolloutMutations,
    ReportMutations,
    ImportMutations,
    ExportMutations,
    KeyMutations,
):
    pass


@strawberry.type(description="The subscriptions.")
class Subscription(FeedSubscriptions):
    pass


def make_schema() -> strawberry.Schema:
    """Return the schema of all features."""
    schema = strawberry.Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        # Fields return only their interface, so Strawberry does not find these types itself.
        types=[
            InvalidInput,
            SegmentNotFound,
            SegmentAlreadyExists,
            UserNotFound,
            UserAlreadyExists,
            VersionConflict,
            RolloutNotFound,
            RolloutStateConflict,
            ImportNotFound,
            ImportStateConflict,
            ApiKeyNotFound,
            IdempotencyKeyReused,
            MembershipEvent,
        ],
        config=StrawberryConfig(scalar_map=SCALARS),
    )
    declare_idempotent(schema._schema)
    declare_nodes(schema._schema)
    _describe_inputs(schema._schema)
    return schema


def _describe_inputs(schema: GraphQLSchema) -> None:
    """Give the argument `input` of each mutation the description of its type."""
    assert schema.mutation_type  # noqa: S101 - declared above
    for field in schema.mutation_type.fields.values():
        argument = field.args["input"]
        argument.description = get_named_type(argument.type).description


def breaking_changes_since(released: str, *, on: date | None) -> list[str]:
    """Return the breaking changes for clients of a released schema, one line each.

    Args:
        released: The output of `segmentql schema` at the release.
        on: The date of the next release. Deprecated parts may be removed from the date that they
            name. If it is None, no part may be removed.

    Raises:
        BadValue: `released` is not a schema.
    """
    return breaking_changes(released, make_schema().as_str(), on=on)


def document_limits(settings: Settings) -> DocumentLimits:
    """Return the limits of each request."""
    return DocumentLimits(
        tokens=settings.max_tokens,
        depth=settings.max_depth,
        aliases=settings.max_aliases,
        directives=settings.max_directives,
        root_fields=settings.max_root_fields,
        list_items=settings.max_list_items,
        cost=settings.max_cost,
        response_bytes=settings.max_response_bytes,
    )


def schema_exposure(settings: Settings) -> SchemaExposure:
    """Return what clients may learn about the schema."""
    return SchemaExposure(
        introspection=settings.introspection == "on", suggestions=settings.suggestions == "on"
    )


def document_errors(settings: Settings, documents: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each document that the service would reject, with its first error.

    The cost is not checked, because it depends on the variables.
    """
    cache = DocumentCache(
        make_schema()._schema, document_limits(settings), schema_exposure(settings), plans=False
    )
    try:
        for document in documents:
            errors = cache.errors_of(document)
            if errors:
                yield document, errors[0].message
    finally:
        cache.close()
