"""Compiled queries answer as graphql-core does: on random documents, and where it is delicate."""

import asyncio
import time
from datetime import timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from graphql import (
    GraphQLField,
    GraphQLObjectType,
    get_named_type,
    is_leaf_type,
    parse,
)
from segmentql.adapters.database import Database
from segmentql.adapters.storage import Storage
from segmentql.callers import ANYBODY
from segmentql.graphql.batching import Loaders
from segmentql.graphql.context import Context
from segmentql.graphql.execution import Answer, Engine, Request
from segmentql.graphql.limits import Limits
from segmentql.graphql.plans import PlanFailed, make_plan
from segmentql.graphql.turns import Unhurried
from segmentql.rollouts.plan import Plan, Stage
from segmentql.rollouts.service import start_rollout
from segmentql.schema import make_schema
from segmentql.settings import Settings
from tests.conftest import Sql, counted_statements

SCHEMA = make_schema()
CORE = SCHEMA._schema
LIMITS = Limits(
    tokens=10_000,
    depth=50,
    aliases=1000,
    directives=1000,
    root_fields=1000,
    list_items=1000,
    cost=1_000_000,
)
PLANNED = Engine(SCHEMA, LIMITS)
PLAIN = Engine(SCHEMA, LIMITS, plans=False)

# For each argument: values that lead somewhere, and now and then one that is refused.
ARGUMENTS = {
    "id": ["1", '"2"', '"99"', '"rep_1"', '"nobody"'],
    "ids": ["[1, 2, 99]", '["1", "1"]', "[]", '["0"]'],
    "slug": ['"A"', '"B"', '"UNKNOWN"', '"not a slug"'],
    "first": ["1", "2", "null", "0"],
    "after": ["null", '"tampered"'],
    "prefix": ['"A"', '""', "null"],
    "userId": ["1", "null"],
    "from": ['"2020-01-01T00:00:00Z"', "null"],
    "to": ['"2040-01-01T00:00:00Z"', "null"],
    "expiresInSeconds": ["1", "0", "null"],
    "asOf": ['"2024-06-01T00:00:00Z"', '"2999-01-01T00:00:00Z"', "null"],
}
CONDITIONS = [
    f" @{name}(if: {value})" for name in ("include", "skip") for value in ("true", "false")
]
MAX_DEPTH = 6


@st.composite
def selections(draw: st.DrawFn, parent: GraphQLObjectType, depth: int) -> str:
    """A selection set of some fields, with aliases, repeats, and fragments on the same type."""
    names = [
        name
        for name, field in parent.fields.items()
        if depth > 1 or is_leaf_type(get_named_type(field.type))
    ] + ["__typename"]
    parts = []
    for position in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(names))
        condition = draw(st.sampled_from(CONDITIONS)) if draw(st.integers(0, 9)) == 0 else ""
        if name == "__typename":
            shown = name + condition
        else:
            shown = draw(field(parent.fields[name], name, depth, condition))
        alias = f"a{position}: " if draw(st.booleans()) or "(" in shown else ""
        part = alias + shown
        if draw(st.integers(0, 9)) == 0:
            around = draw(st.sampled_from([*CONDITIONS, "", "", ""]))
            part = f"... on {parent.name}{around} {{ {part} }}"
        parts.append(part)
    return "{ " + " ".join(parts) + " }"


@st.composite
def field(draw: st.DrawFn, definition: GraphQLField, name: str, depth: int, condition: str) -> str:
    given = [
        f"{argument}: {draw(st.sampled_from(ARGUMENTS[argument]))}"
        for argument, kind in definition.args.items()
        if str(kind.type).endswith("!") or draw(st.integers(0, 3)) == 0
    ]
    arguments = f"({', '.join(given)})" if given else ""
    below = get_named_type(definition.type)
    if not isinstance(below, GraphQLObjectType):
        return name + arguments + condition
    return f"{name}{arguments}{condition} {draw(selections(below, depth - 1))}"


@pytest.fixture
async def context(database: Database, sql: Sql, settings: Settings) -> Context:
    """Two users with memberships of every kind, a history, a rollout and reports."""
    await sql.execute(
        """
        INSERT INTO users SELECT id, '2024-01-01Z' FROM generate_series(1, 3) AS id;
        INSERT INTO segments (slug, name, created_at, updated_at)
        SELECT slug, 'Segment ' || slug, '2024-01-01Z', '2024-01-01Z'
        FROM unnest(ARRAY['A', 'B', 'GONE']) AS slug;
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, expires_at, cause)
        VALUES (1, 1, '2024-02-01Z', '2024-02-01Z', NULL, 'MANUAL'),
            (1, 2, '2024-02-02Z', '2024-02-02Z', '2024-03-01Z', 'MANUAL'),
            (1, 3, '2024-02-03Z', '2024-02-03Z', NULL, 'ROLLOUT'),
            (2, 1, '2024-02-01Z', '2024-02-01Z', '2040-01-01Z', 'MANUAL');
        UPDATE segments SET deleted_at = '2024-04-01Z' WHERE slug = 'GONE';
        INSERT INTO reports (user_id, year, month, status, created_at, touched_at)
        VALUES (1, 2024, 2, 'QUEUED', '2024-03-01Z', '2024-03-01Z'),
            (NULL, 2024, 2, 'QUEUED', '2024-03-01Z', '2024-03-01Z');
        """
    )
    plan = Plan([Stage(Decimal(50)), Stage(Decimal(60), after=timedelta(days=300))])
    await database.transaction(
        lambda session: start_rollout(session, segment_id=1, plan=plan, actor=None)
    )
    return context_of(database, settings)


def context_of(database: Database, settings: Settings) -> Context:
    loaders = Loaders(database, primary=True)
    return Context(
        database=database,
        storage=Storage(settings),
        stopping=asyncio.Event(),
        unhurried=Unhurried(),
        primary_loaders=loaders,
        replica_loaders=loaders,
        request_id="the-request",
        caller=ANYBODY,
        primary=True,
    )


async def answer(engine: Engine, context: Context, query: str, **variables: Any) -> Answer:
    return await engine.answer(Request(query, variables), context, queries_only=False)


def told(given: Answer) -> tuple[bytes, list[bytes]]:
    """The data with its order of fields, and the errors, whose order is by chance."""
    errors = sorted(orjson.dumps(error) for error in given.body.get("errors", ()))
    return orjson.dumps(given.body.get("data")), errors


@profile(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=selections(CORE.query_type, MAX_DEPTH))  # type: ignore[arg-type]
async def test_random_queries_are_answered_as_by_graphql_core(context: Context, body: str) -> None:
    planned = await answer(PLANNED, context, body)
    plain = await answer(PLAIN, context, body)
    assert told(planned) == told(plain)
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
async def test_variables_fragments_and_merged_fields(context: Context, query: str) -> None:
    document = parse(query)
    plan = make_plan(CORE, document, document.definitions[0])  # type: ignore[arg-type]
    assert plan
    planned = await plan.run(context, {"id": "1"})
    plain = await answer(PLAIN, context, query, id="1")
    assert orjson.dumps(planned) == orjson.dumps(plain.body["data"])


@pytest.mark.parametrize(
    "query",
    [
        "mutation { deleteUser(input: {id: 1}) { deletedId } }",
        "{ __schema { types { name } } }",
        "{ user(id: 1) { id @skip(if: false) id } }",
        "{ user(id: 1) { ...f ...f @skip(if: true) } } fragment f on User { id }",
        "query @include(if: true) { user(id: 1) { id } }",
    ],
)
def test_what_plans_do_not_know_is_left_to_graphql_core(query: str) -> None:
    document = parse(query)
    assert make_plan(CORE, document, document.definitions[0]) is None  # type: ignore[arg-type]


async def test_a_failed_plan_tells_graphql_cores_errors_once(context: Context, sql: Sql) -> None:
    query = '{ good: user(id: 1) { id } bad: user(id: "zero") { id } }'
    body = (await answer(PLANNED, context, query)).body
    assert body["data"] == {"good": {"id": "1"}, "bad": None}
    assert [error["path"] for error in body["errors"]] == [["bad"]]


async def test_a_cancelled_query_takes_its_wishes_back(context: Context, sql: Sql) -> None:
    query = "{ user(id: 1) { segments { slug } } }"
    task = asyncio.create_task(answer(PLANNED, context, query))
    await asyncio.sleep(0)  # the first wish is made
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await answer(PLANNED, context, query)).body["data"] == {
        "user": {"segments": [{"slug": "A"}]}
    }


@pytest.mark.parametrize("condition", ["include", "skip"])
async def test_a_condition_of_null_is_refused_as_by_graphql_core(
    context: Context, condition: str
) -> None:
    query = f"query($if: Boolean = true) {{ user(id: 1) {{ id @{condition}(if: $if) }} }}"
    variables = {"if": None}
    planned = await PLANNED.answer(Request(query, variables), context, queries_only=False)
    plain = await PLAIN.answer(Request(query, variables), context, queries_only=False)
    assert told(planned) == told(plain)
    assert planned.body["errors"]


async def test_a_plan_says_so_when_a_variable_is_refused(context: Context) -> None:
    document = parse("query($id: ID!) { user(id: $id) { id } }")
    plan = make_plan(CORE, document, document.definitions[0])  # type: ignore[arg-type]
    assert plan
    with pytest.raises(PlanFailed):
        await plan.run(context, {})


@pytest.mark.parametrize(
    "query",
    [
        # Twice the same fragment, in a chain: 2 to the 30th fields, if each were followed.
        "{ user(id: 1) { ...f0 } } "
        + " ".join(f"fragment f{n} on User {{ ...f{n + 1} ...f{n + 1} }}" for n in range(30))
        + " fragment f30 on User { id }",
        # Twice the same list under two names, in a chain.
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
def test_a_small_document_does_not_make_a_huge_plan(query: str) -> None:
    document = parse(query)
    started = time.process_time()
    make_plan(CORE, document, document.definitions[0])  # type: ignore[arg-type]
    # 2 to the 20th fields take a minute; the bound is one that no machine is too slow for.
    assert time.process_time() - started < 5


@pytest.mark.parametrize("stuck", ['isIn(slug: "A")', "segments { slug }"])
async def test_a_statement_that_times_out_is_not_waited_for_twice(
    settings: Settings, sql: Sql, stuck: str
) -> None:
    """And the fields that did not time out are answered."""
    await sql.execute("INSERT INTO users VALUES (1, now())")
    patient = settings.model_copy(update={"statement_timeout_seconds": 1})
    database = Database(patient, name="tests", deliver=lambda messages: None)
    context = context_of(database, settings)
    query = f"{{ user(id: 1) {{ id }} stuck: user(id: 1) {{ {stuck} }} }}"
    async with sql.transaction():
        await sql.execute("LOCK TABLE memberships IN ACCESS EXCLUSIVE MODE")
        with counted_statements() as statements:
            body = (await answer(PLANNED, context, query)).body
    await database.dispose()
    assert body["data"] == {"user": {"id": "1"}, "stuck": None}
    assert [error["extensions"]["code"] for error in body["errors"]] == ["TIMEOUT"]
    assert len([statement for statement in statements if "memberships" in statement]) == 1
