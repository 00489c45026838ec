"""Execution of operations without HTTP, with and without compiled plans, and random selections."""

import asyncio
import re
from typing import Any

import orjson
from hypothesis import strategies as st

from graphql import (
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLObjectType,
    get_named_type,
    is_leaf_type,
)
from segmentql.adapters.concurrency import ConcurrencyLimit
from segmentql.adapters.database import Database
from segmentql.adapters.storage import Storage
from segmentql.feed.reader import FeedReader
from segmentql.graphql.context import Context
from segmentql.graphql.cost.document_limits import DocumentLimits
from segmentql.graphql.cost.scheduling import BackgroundLimiter
from segmentql.graphql.execution.executor import ExecutionResponse, GraphQLExecutor
from segmentql.graphql.execution.request import Request
from segmentql.graphql.types.dataloader import LoaderRegistry
from segmentql.graphql.types.idempotency import IdempotentRunner
from segmentql.idempotency.runner import DatabaseIdempotentRunner
from segmentql.principal import ANONYMOUS_ADMIN
from segmentql.rollouts.forecast import RolloutForecaster
from segmentql.schema import make_schema
from segmentql.settings import Settings

SCHEMA = make_schema()
CORE = SCHEMA._schema
LIMITS = DocumentLimits(
    tokens=10_000,
    depth=50,
    aliases=1000,
    directives=1000,
    root_fields=1000,
    list_items=1000,
    cost=1_000_000,
    response_bytes=100_000_000,
)
COMPILING_EXECUTOR = GraphQLExecutor(SCHEMA, LIMITS)
PLAIN_EXECUTOR = GraphQLExecutor(SCHEMA, LIMITS, plans=False)

# Values for each argument: most lead to results, and a few are rejected.
ARGUMENTS = {
    "id": ["1", '"2"', '"99"', '"rep_1"', '"imp_1"', '"exp_1"', '"nobody"', '"seg_1"', '"rol_1"'],
    "ids": ["[1, 2, 99]", '["1", "1"]', "[]", '["0"]'],
    "slug": ['"A"', '"B"', '"UNKNOWN"', '"not a slug"'],
    "first": ["1", "2", "null", "0"],
    "after": ["null", '"tampered"'],
    "start": ["NOW", "EARLIEST", "null"],
    "filter": ['{slugs: ["A"]}', "{operations: [LEFT]}", "{userIds: []}", "null"],
    "waitSeconds": ["0", "null", "61"],
    "prefix": ['"A"', '""', "null"],
    "search": ['"a"', '"SEGMENT"', '""', "null"],
    "includeDeleted": ["true", "false", "null"],
    "actor": ['"ada"', '""', "null"],
    "userId": ["1", "null"],
    "userKey": ['"two"', '"unknown"', "null"],
    "key": ['"one"', '"unknown"', '""'],
    "keys": ['["one", "two", "unknown"]', '["two", "two"]', "[]", '[""]'],
    "from": ['"2020-01-01T00:00:00Z"', "null"],
    "to": ['"2040-01-01T00:00:00Z"', '"2024-06-01T00:00:00Z"', "null"],
    "outcomes": ["[JOINED]", "[JOINED, LEFT]", "[]", "null"],
    "points": ["1", "3", "null", "0"],
    "expiresInSeconds": ["1", "0", "null"],
    "asOf": ['"2024-06-01T00:00:00Z"', '"2999-01-01T00:00:00Z"', "null"],
}
MOSTLY_GIVEN = {("explain", "userId")}
"""Optional arguments without which the field is mostly rejected."""

CONDITIONS = [
    f" @{name}(if: {value})" for name in ("include", "skip") for value in ("true", "false")
]
INTERFACE_SELECTIONS = {
    "MutationError": [
        " { __typename code path message }",
        " { ... on InvalidInput { allowed path } ... on SegmentNotFound { slugs } }",
        " { code ... on SegmentAlreadyExists { segment { slug memberCount } } }",
    ],
    "FeedEvent": [
        " { __typename cursor at }",
        " { ... on FeedEvent { at ... on MembershipEvent { entry { id user { id } } } } cursor }",
        " { c: cursor ... on MembershipEvent @include(if: true) { __typename entry { segment {"
        " slug } } } ... on MembershipEvent @skip(if: true) { d: cursor } }",
    ],
    "Node": [
        " { __typename id }",
        " { ... on User { key segments { slug } } ... on Node { id ... on Report { month } } }",
        " { id ... on Segment @include(if: true) { slug rollout { id } } ... on Rollout { status }"
        " ... on Export { segment { id } } ... on Import @skip(if: true) { mode } }",
    ],
}
MAX_DEPTH = 6


@st.composite
def selections(draw: st.DrawFn, parent: GraphQLObjectType, depth: int) -> str:
    """Draw a selection set of some fields, with aliases, repeats and fragments on the same type."""
    names = [
        name
        for name, field in parent.fields.items()
        if (depth > 1 or is_leaf_type(get_named_type(field.type)))
        # The database's time, which differs by execution.
        and (parent.name, name) != ("Explanation", "at")
    ] + ["__typename"]
    parts = []
    for position in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(names))
        condition = draw(st.sampled_from(CONDITIONS)) if draw(st.integers(0, 9)) == 0 else ""
        if name == "__typename":
            selected = name + condition
        else:
            selected = draw(field(parent.fields[name], name, depth, condition))
        alias = f"a{position}: " if draw(st.booleans()) or "(" in selected else ""
        part = alias + selected
        if draw(st.integers(0, 9)) == 0:
            directive = draw(st.sampled_from([*CONDITIONS, "", "", ""]))
            part = f"... on {parent.name}{directive} {{ {part} }}"
        parts.append(part)
    return "{ " + " ".join(parts) + " }"


@st.composite
def field(draw: st.DrawFn, definition: GraphQLField, name: str, depth: int, condition: str) -> str:
    literals = []
    for argument, kind in definition.args.items():
        required = str(kind.type).endswith("!")
        mostly = (name, argument) in MOSTLY_GIVEN
        if required or mostly or draw(st.integers(0, 3)) == 0:
            values = [value for value in ARGUMENTS[argument] if value != "null" or not required]
            literals.append(f"{argument}: {draw(st.sampled_from(values))}")
    arguments = f"({', '.join(literals)})" if literals else ""
    named_type = get_named_type(definition.type)
    if isinstance(named_type, GraphQLInterfaceType):
        return (
            name
            + arguments
            + condition
            + draw(st.sampled_from(INTERFACE_SELECTIONS[named_type.name]))
        )
    if not isinstance(named_type, GraphQLObjectType):
        return name + arguments + condition
    return f"{name}{arguments}{condition} {draw(selections(named_type, depth - 1))}"


def make_context(database: Database, settings: Settings) -> Context:
    loaders = LoaderRegistry(database, primary=True)
    return Context(
        database=database,
        storage=Storage(settings),
        stopping=asyncio.Event(),
        background=BackgroundLimiter(),
        primary_loaders=loaders,
        replica_loaders=loaders,
        request_id="the-request",
        principal=ANONYMOUS_ADMIN,
        primary=True,
        features={
            FeedReader: FeedReader(database, ConcurrencyLimit(500, 200)),
            RolloutForecaster: RolloutForecaster(database),
            IdempotentRunner: DatabaseIdempotentRunner(database),
        },
        response_bytes=LIMITS.response_bytes,
        remaining_bytes=LIMITS.response_bytes,
    )


async def execute(
    executor: GraphQLExecutor, context: Context, query: str, **variables: Any
) -> ExecutionResponse:
    return await executor.execute(Request(query, variables), context, queries_only=False)


def comparable_response(response: ExecutionResponse) -> tuple[bytes, list[bytes]]:
    """Return the data with its field order, and the sorted errors."""
    errors = sorted(orjson.dumps(error) for error in response.body.get("errors", ()))
    # Messages about a time in the past name the distance from now, which differs by execution.
    data = re.sub(rb"-\d+\.\d{6} seconds", b"-N seconds", orjson.dumps(response.body.get("data")))
    # A link is signed with the second of the execution.
    data = re.sub(rb"X-Amz-(Date|Signature)=\w+", rb"X-Amz-\1=", data)
    return data, errors
