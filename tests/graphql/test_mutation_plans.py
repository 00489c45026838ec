"""Compiled mutations return the same results as graphql-core, and each is executed once."""

import asyncio
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from graphql import GraphQLObjectType, get_named_type, parse
from segmentql.adapters.database import Database
from segmentql.graphql.context import Context
from segmentql.graphql.execution.compiler import compile_operation
from segmentql.graphql.execution.plans import MutationPlan, PlanFallback
from segmentql.graphql.execution.request import Request
from segmentql.principal import Principal
from segmentql.settings import Settings
from segmentql.tables import Role
from tests.conftest import Sql, recorded_statements, until
from tests.graphql.executor_helpers import (
    COMPILING_EXECUTOR,
    CORE,
    PLAIN_EXECUTOR,
    comparable_response,
    execute,
    make_context,
    selections,
)

MUTATIONS: Final = CORE.mutation_type.fields  # type: ignore[union-attr]

# Mutations that can be repeated with the same result: they are rejected or have nothing to do.
REPEATABLE: Final[list[tuple[str, dict[str, Any]]]] = [
    ("createUser", {"id": "1"}),
    ("createUser", {"id": "zero"}),
    ("deleteUser", {"id": 99}),
    ("createSegment", {"slug": "A", "rollout": {"stages": [{"percent": 10}], "percent": None}}),
    ("createSegment", {"slug": "NEW", "rollout": {"percent": 10, "stages": [{"percent": 20}]}}),
    ("createSegment", {"slug": "no slug", "name": "", "description": None}),
    ("updateSegment", {"slug": "A", "expectedVersion": 77}),
    ("updateSegment", {"slug": "A"}),
    ("updateSegment", {"slug": "UNKNOWN", "name": None}),
    ("deleteSegment", {"slug": "UNKNOWN"}),
    ("updateUserSegments", {"userId": "1", "add": ["A"]}),
    ("updateUserSegments", {"userId": 2, "add": ["A"], "onExisting": "KEEP", "ttlSeconds": 9}),
    ("updateUserSegments", {"userId": "2", "add": None, "remove": ["B"], "onExisting": None}),
    ("updateUserSegments", {"userId": "3"}),
    ("updateUserSegments", {"userId": "1", "add": ["A", "UNKNOWN"], "remove": ["A"]}),
    ("updateUserSegments", {"userId": "1", "add": ["A"], "expiresAt": "2001-01-01T00:00:00Z"}),
    ("updateUserSegments", {"userId": "1", "add": ["A"], "expiresAt": "no moment"}),
    ("updateUserSegments", {"add": ["A"]}),
    ("updateSegmentMembers", {"slug": "A", "add": ["1", 2], "onExisting": "KEEP"}),
    ("updateSegmentMembers", {"slug": "A", "addKeys": None, "removeKeys": ["unknown"]}),
    ("updateSegmentMembers", {"slug": "B", "remove": ["2", "2"], "onExcluded": None}),
    ("updateSegmentMembers", {"slug": "A", "add": ["1"] * 1001}),
    ("updateSegmentMembers", {"slug": "UNKNOWN", "add": ["0"], "remove": ["1"]}),
    ("updateSegmentMembers", {"slug": "UNKNOWN", "add": [1.5]}),
    ("updateSegmentMembers", {"add": ["1"]}),
    ("setRollout", {"slug": "B", "rollout": {"percent": 101, "enrollNewUsers": False}}),
    ("pauseRollout", {"slug": "B"}),
    ("resumeRollout", {"slug": "A"}),
    ("cancelRollout", {"slug": "B", "withdraw": True}),
    ("createUser", {"key": "new", "dryRun": True}),
    ("updateUser", {"id": "1", "key": "new", "dryRun": True}),
    ("deleteUser", {"id": "1", "dryRun": True}),
    ("createSegment", {"slug": "NEW", "dryRun": True}),
    ("deleteSegment", {"slug": "A", "dryRun": True}),
    ("updateUserSegments", {"userId": "9", "add": ["A"], "remove": ["B"], "dryRun": True}),
    ("updateSegmentMembers", {"slug": "A", "add": ["8", "9"], "dryRun": True}),
    ("setRollout", {"slug": "A", "rollout": {"percent": 100}, "dryRun": True}),
    ("createReport", {"year": 2024, "month": 13, "waitSeconds": 61}),
    ("createReport", {"userId": "4242", "year": 2024, "month": 1}),
]


def payload_selection(name: str) -> GraphQLObjectType:
    kind = get_named_type(MUTATIONS[name].type)
    assert isinstance(kind, GraphQLObjectType)
    return kind


def mutation_document(name: str, selection: str) -> str:
    kind = MUTATIONS[name].args["input"].type
    return f"mutation($input: {kind}) {{ {name}(input: $input) {selection} }}"


@st.composite
def mutation_requests(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Draw a document and its input."""
    name, input_value = draw(st.sampled_from(REPEATABLE))
    return mutation_document(name, draw(selections(payload_selection(name), 5))), input_value


@profile(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(selected=mutation_requests())
async def test_random_mutations_match_graphql_core(
    context: Context,
    selected: tuple[str, dict[str, Any]],
) -> None:
    document, given_input = selected
    planned = await execute(COMPILING_EXECUTOR, context, document, input=given_input)
    context.database_error = None
    plain = await execute(PLAIN_EXECUTOR, context, document, input=given_input)
    assert comparable_response(planned) == comparable_response(plain)
    assert planned.executed == plain.executed


def test_every_mutation_has_a_plan() -> None:
    for name in MUTATIONS:
        document = parse(
            mutation_document(name, "{ errors { code ... on InvalidInput { allowed } } }")
        )
        plan = compile_operation(CORE, document, document.definitions[0])  # type: ignore[arg-type]
        assert isinstance(plan, MutationPlan), name


ADD = (
    'mutation { updateUserSegments(input: {userId: 3, add: ["A"]}) { segmentsAdded user { %s } } }'
)


async def test_mutation_with_an_error_in_its_payload_runs_once(
    context: Context,
    sql: Sql,
) -> None:
    body = (
        await execute(COMPILING_EXECUTOR, context, ADD % "id history(first: 0) { nodes { id } }")
    ).body
    # the segment was not already added
    assert body["data"]["updateUserSegments"]["segmentsAdded"] == 1
    assert [error["path"] for error in body["errors"]] == [
        ["updateUserSegments", "user", "history"]
    ]
    assert await sql.fetchval("SELECT count(*) FROM history WHERE user_id = 3") == 1


async def test_payload_reads_the_result_of_its_mutation(
    context: Context,
) -> None:
    body = (
        await execute(COMPILING_EXECUTOR, context, ADD % 'segments { slug } isIn(slug: "A")')
    ).body
    assert body["data"]["updateUserSegments"]["user"] == {
        "segments": [{"slug": "A"}],
        "isIn": True,
    }


async def test_failed_mutation_is_not_retried(settings: Settings, sql: Sql) -> None:
    await sql.execute(
        """INSERT INTO users VALUES (3, now());
        INSERT INTO segments (slug, created_at, updated_at) VALUES ('A', now(), now())"""
    )
    short_timeout = settings.model_copy(update={"statement_timeout_seconds": 1})
    database = Database(short_timeout, name="tests", publish=lambda messages: None)
    short_deadline = make_context(database, settings)
    async with sql.transaction():
        await sql.execute("LOCK TABLE memberships IN ACCESS EXCLUSIVE MODE")
        with recorded_statements() as statements:
            body = (await execute(COMPILING_EXECUTOR, short_deadline, ADD % "id")).body
    await database.dispose()
    assert body["data"] == {"updateUserSegments": None}
    assert [(error["path"], error["extensions"]["code"]) for error in body["errors"]] == [
        (["updateUserSegments"], "TIMEOUT")
    ]
    assert len([statement for statement in statements if "INSERT INTO users" in statement]) == 1


async def test_forbidden_mutation_is_rejected_without_a_transaction(
    context: Context,
) -> None:
    context.principal = Principal(key_id="key_reader", name="reader", role=Role.READER)
    document = parse(ADD % "id")
    plan = compile_operation(CORE, document, document.definitions[0])  # type: ignore[arg-type]
    assert plan
    with recorded_statements() as statements:
        with pytest.raises(PlanFallback) as failed:
            await plan.run(context, {})
        body = (await execute(COMPILING_EXECUTOR, context, ADD % "id")).body
    assert failed.value.mutation_result is None
    assert [error["extensions"]["code"] for error in body["errors"]] == ["FORBIDDEN"]
    assert not statements


async def waits_for_lock(sql: Sql) -> bool:
    return bool(await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))


async def test_cancelling_a_mutation_cancels_its_statement(
    context: Context,
    sql: Sql,
) -> None:
    async with sql.transaction():
        await sql.execute("LOCK TABLE memberships IN ACCESS EXCLUSIVE MODE")
        task = asyncio.create_task(
            COMPILING_EXECUTOR.execute(Request(ADD % "id"), context, queries_only=False)
        )
        await until(lambda: waits_for_lock(sql))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await sql.fetchval("SELECT count(*) FROM history WHERE user_id = 3") == 0
