"""Compiled queries return the same results as graphql-core."""

import asyncio
import time

import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile

from graphql import parse
from segmentql.adapters.database import Database
from segmentql.graphql.context import Context
from segmentql.graphql.execution.compiler import compile_operation
from segmentql.graphql.execution.plans import PlanFallback
from segmentql.graphql.execution.request import Request
from segmentql.settings import Settings
from tests.conftest import Sql, recorded_statements
from tests.graphql.executor_helpers import (
    COMPILING_EXECUTOR,
    CORE,
    MAX_DEPTH,
    PLAIN_EXECUTOR,
    comparable_response,
    execute,
    make_context,
    selections,
)
from tests.pooler import NEEDS_OWN_TIMEOUT


@profile(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=selections(CORE.query_type, MAX_DEPTH))  # type: ignore[arg-type]
async def test_random_queries_match_graphql_core(context: Context, body: str) -> None:
    planned = await execute(COMPILING_EXECUTOR, context, body)
    plain = await execute(PLAIN_EXECUTOR, context, body)
    assert comparable_response(planned) == comparable_response(plain)
    assert planned.executed == plain.executed


@pytest.mark.parametrize(
    "query",
    [
        "query($id: ID!, $n: Int = 1) { user(id: $id) { history(first: $n) { nodes { id } } } }",
        "query($id: ID!) { a: user(id: $id) { id } b: user(id: $id) { id createdAt } }",
        "query($id: ID!) { user(id: $id) { segments { slug } segments { id } } }",
        "query($id: ID!) { user(id: $id) { ...f } } fragment f on User { id segments { ...s } }"
        " fragment s on Segment { slug memberCount }",
        "query($id: ID!) { ... on Query { user(id: $id) { ... { id } } } }",
        "query($id: ID!, $no: Boolean = false, $yes: Boolean! = true) { user(id: $id)"
        " { a: id @include(if: $no) ...f @include(if: $yes) @skip(if: $no) c: id @skip(if: $yes)"
        " } }"
        " fragment f on User { d: id @include(if: $yes) segments { slug @skip(if: $no) } }",
    ],
)
async def test_variables_fragments_and_merged_fields_match_graphql_core(
    context: Context, query: str
) -> None:
    document = parse(query)
    plan = compile_operation(CORE, document, document.definitions[0])  # type: ignore[arg-type]
    assert plan
    planned = await plan.run(context, {"id": "1"})
    plain = await execute(PLAIN_EXECUTOR, context, query, id="1")
    assert orjson.dumps(planned) == orjson.dumps(plain.body["data"])


@pytest.mark.parametrize(
    "query",
    [
        "mutation { a: deleteUser(input: {id: 1}) { deletedId }"
        " b: deleteUser(input: {id: 1}) { deletedId } }",
        "mutation { deleteUser(input: {id: 1}) @include(if: true) { deletedId } }",
        "mutation { __typename }",
        "{ __schema { types { name } } }",
        "{ user(id: 1) { id @skip(if: false) id } }",
        "{ user(id: 1) { ...f ...f @skip(if: true) } } fragment f on User { id }",
        "query @include(if: true) { user(id: 1) { id } }",
    ],
)
def test_unsupported_documents_are_executed_by_graphql_core(query: str) -> None:
    document = parse(query)
    assert compile_operation(CORE, document, document.definitions[0]) is None  # type: ignore[arg-type]


async def test_failed_plan_returns_the_errors_of_graphql_core_once(
    context: Context, sql: Sql
) -> None:
    query = '{ good: user(id: 1) { id } bad: user(id: "zero") { id } }'
    body = (await execute(COMPILING_EXECUTOR, context, query)).body
    assert body["data"] == {"good": {"id": "1"}, "bad": None}
    assert [error["path"] for error in body["errors"]] == [["bad"]]


async def test_cancelled_query_cancels_its_loads(context: Context, sql: Sql) -> None:
    query = "{ user(id: 1) { segments { slug } } }"
    task = asyncio.create_task(execute(COMPILING_EXECUTOR, context, query))
    await asyncio.sleep(0)  # the first load is pending
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await execute(COMPILING_EXECUTOR, context, query)).body["data"] == {
        "user": {"segments": [{"slug": "A"}]}
    }


@pytest.mark.parametrize("condition", ["include", "skip"])
async def test_null_condition_is_rejected_as_by_graphql_core(
    context: Context, condition: str
) -> None:
    query = f"query($if: Boolean = true) {{ user(id: 1) {{ id @{condition}(if: $if) }} }}"
    variables = {"if": None}
    planned = await COMPILING_EXECUTOR.execute(
        Request(query, variables), context, queries_only=False
    )
    plain = await PLAIN_EXECUTOR.execute(Request(query, variables), context, queries_only=False)
    assert comparable_response(planned) == comparable_response(plain)
    assert planned.body["errors"]


async def test_plan_reports_a_rejected_variable(context: Context) -> None:
    document = parse("query($id: ID!) { user(id: $id) { id } }")
    plan = compile_operation(CORE, document, document.definitions[0])  # type: ignore[arg-type]
    assert plan
    with pytest.raises(PlanFallback):
        await plan.run(context, {})


@pytest.mark.parametrize(
    "query",
    [
        # The same fragment twice in a chain: 2 to the 30th fields, if each were followed.
        "{ user(id: 1) { ...f0 } } "
        + " ".join(f"fragment f{n} on User {{ ...f{n + 1} ...f{n + 1} }}" for n in range(30))
        + " fragment f30 on User { id }",
        # The same list under two names in a chain.
        "{ user(id: 1) { ...g0 } } "
        + " ".join(
            f"fragment g{n} on User {{ memberships {{ user {{ ...g{n + 1} }} }}"
            f" m: memberships {{ user {{ ...g{n + 1} }} }} }}"
            for n in range(20)
        )
        + " fragment g20 on User { id }",
    ],
    ids=["repeated", "aliased"],
)
def test_small_document_does_not_compile_to_a_huge_plan(query: str) -> None:
    document = parse(query)
    started = time.process_time()
    compile_operation(CORE, document, document.definitions[0])  # type: ignore[arg-type]
    # 2 to the 20th fields take a minute, so the time limit holds on slow machines as well.
    assert time.process_time() - started < 5


@NEEDS_OWN_TIMEOUT
@pytest.mark.parametrize("blocked", ['isIn(slug: "A")', "segments { slug }"])
async def test_timed_out_statement_is_not_retried_by_graphql_core(
    settings: Settings, sql: Sql, blocked: str
) -> None:
    """The fields that did not time out have results."""
    await sql.execute("INSERT INTO users VALUES (1, now())")
    long_timeout = settings.model_copy(update={"statement_timeout_seconds": 1})
    database = Database(long_timeout, name="tests", publish=lambda messages: None)
    context = make_context(database, settings)
    query = f"{{ user(id: 1) {{ id }} stuck: user(id: 1) {{ {blocked} }} }}"
    async with sql.transaction():
        await sql.execute("LOCK TABLE memberships IN ACCESS EXCLUSIVE MODE")
        with recorded_statements() as statements:
            body = (await execute(COMPILING_EXECUTOR, context, query)).body
    await database.dispose()
    assert body["data"] == {"user": {"id": "1"}, "stuck": None}
    assert [error["extensions"]["code"] for error in body["errors"]] == ["TIMEOUT"]
    assert len([statement for statement in statements if "memberships" in statement]) == 1
