"""`_entities` resolves the representations of a gateway in batches."""

from typing import Any

import pytest

from graphql import parse
from segmentql.graphql.context import Context
from segmentql.graphql.execution.compiler import compile_operation
from segmentql.graphql.execution.executor import GraphQLExecutor
from segmentql.subgraph import make_subgraph
from segmentql.validators import SLUG_ALLOWED, USER_ID_ALLOWED
from tests.conftest import Sql, recorded_statements
from tests.federation.conftest import SubgraphApi
from tests.graphql.executor_helpers import LIMITS, comparable_response, execute, make_context

ENTITIES = """query($representations: [_Any!]!) { _entities(representations: $representations) {
  ... on User { id segments { slug } } ... on Segment { slug version } } }"""
USERS = """query($representations: [_Any!]!) { _entities(representations: $representations) {
  ... on User { __typename id segments { slug } } } }"""
ENTITY_ALLOWED = "an object whose `__typename` is User, with `id`, or Segment, with `slug`"


def user(user_id: object) -> dict[str, object]:
    return {"__typename": "User", "id": user_id}


def segment(slug: object) -> dict[str, object]:
    return {"__typename": "Segment", "slug": slug}


@pytest.mark.usefixtures("members")
async def test_entities_keep_their_order_and_are_null_if_they_do_not_exist(
    subgraph: SubgraphApi,
) -> None:
    representations = [
        *(segment("B"), user("2"), segment("GONE"), user(1), user("5000"), user("2")),
        *(segment("not a slug"), segment("a"), {**user("3"), "key": "ignored"}),
    ]
    data = await subgraph(ENTITIES, representations=representations)
    one, two, three = (
        {"id": str(number), "segments": [{"slug": "A"}, {"slug": "B"}]} for number in (1, 2, 3)
    )
    b = {"slug": "B", "version": 1}
    assert data["_entities"] == [b, two, None, one, None, two, None, None, three]


@pytest.mark.usefixtures("members")
@pytest.mark.parametrize("count", [1, 1000])
async def test_statement_count_is_independent_of_the_entities(
    subgraph: SubgraphApi, count: int
) -> None:
    representations = [user(str(number)) for number in range(1, count + 1)]
    await subgraph(USERS, representations=representations[:1])  # document parsed
    with recorded_statements() as statements:
        data = await subgraph(USERS, representations=representations)
    assert len(statements) == 2
    assert data["_entities"] == [
        {
            "__typename": "User",
            "id": str(number),
            "segments": [{"slug": "A"}, {"slug": "B"}],
        }
        for number in range(1, count + 1)
    ]


async def test_more_than_a_thousand_entities_are_rejected(subgraph: SubgraphApi) -> None:
    body = await subgraph.body(USERS, representations=[user("1")] * 1001)
    assert body["data"] is None
    (error,) = body["errors"]
    assert error["extensions"] == {
        "code": "LIMIT_EXCEEDED",
        "argument": "representations",
        "limit": 1000,
        "value": 1001,
    }


async def test_cost_grows_with_the_entities(subgraph: SubgraphApi) -> None:
    costs = []
    for count in (1, 1000):
        request = {"query": USERS, "variables": {"representations": [user("1")] * count}}
        body = (await subgraph.http.post("/federation", json=request)).json()
        costs.append(body["extensions"]["cost"]["estimated"])
    assert costs == [6, 6000]
    query = USERS.replace("slug", "slug memberCount")
    error = await subgraph.error(query, representations=[user("1")] * 1000)
    assert error["extensions"]["argument"] == "cost"


REJECTED: list[tuple[Any, str, str, str]] = [
    ({}, "", "the value is not an entity of this subgraph", ENTITY_ALLOWED),
    ("User", "", "the value is not an entity of this subgraph", ENTITY_ALLOWED),
    ({"__typename": "Report"}, "", "the value is not an entity of this subgraph", ENTITY_ALLOWED),
    ({"__typename": ["User"]}, "", "the value is not an entity of this subgraph", ENTITY_ALLOWED),
    ({"__typename": "User"}, ".id", "the value is not an id", USER_ID_ALLOWED),
    (user(None), ".id", "the value is not an id", USER_ID_ALLOWED),
    (user([1]), ".id", "the value is not an id", USER_ID_ALLOWED),
    (user(1.0), ".id", "the value is not an id", USER_ID_ALLOWED),
    (user("ada"), ".id", "'ada' is not a user id", USER_ID_ALLOWED),
    (user(0), ".id", "'0' is not a user id", USER_ID_ALLOWED),
    ({"__typename": "Segment"}, ".slug", "the value is not a string", SLUG_ALLOWED),
    (segment(1), ".slug", "the value is not a string", SLUG_ALLOWED),
]


@pytest.mark.usefixtures("members")
@pytest.mark.parametrize(("representation", "path", "problem", "allowed"), REJECTED)
async def test_invalid_representation_is_an_error_of_its_entity_only(
    subgraph: SubgraphApi, representation: Any, path: str, problem: str, allowed: str
) -> None:
    body = await subgraph.body(USERS, representations=[user("1"), representation, user("2")])
    first, invalid, last = body["data"]["_entities"]
    assert (first["id"], invalid, last["id"]) == ("1", None, "2")
    (error,) = body["errors"]
    argument = f"representations.1{path}"
    assert error["path"] == ["_entities", 1]
    assert error["message"] == f"{argument} is not valid: {problem}. Allowed: {allowed}."
    assert error["extensions"] == {"code": "BAD_REQUEST", "argument": argument, "allowed": allowed}


LITERALS = [
    '{ _entities(representations: [{__typename: "User", id: 1}, {__typename: "Segment", slug: "A"},'
    ' {__typename: "User", id: true}]) { __typename ... on User { id } ... on Segment { slug } } }',
    '{ _entities(representations: [{__typename: "User", id: "x"}]) { ... on User { id } } }',
    "{ _entities(representations: []) { __typename } }",
    '{ _entities(representations: {__typename: "User", id: 2}) { ... on _Entity { __typename } } }',
    "{ _service { sdl __typename } }",
]


@pytest.mark.parametrize("query", LITERALS)
async def test_plans_of_the_subgraph_match_graphql_core(context: Context, query: str) -> None:
    document = parse(query)
    schema = make_subgraph()
    assert compile_operation(schema._schema, document, document.definitions[0])  # type: ignore[arg-type]
    planned = await execute(GraphQLExecutor(schema, LIMITS), context, query)
    plain = await execute(GraphQLExecutor(schema, LIMITS, plans=False), context, query)
    assert comparable_response(planned) == comparable_response(plain)
    assert planned.body["data"] is not None


@pytest.fixture
async def context(database: Any, sql: Sql, settings: Any, members: None) -> Context:
    return make_context(database, settings)
