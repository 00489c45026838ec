"""The estimated cost is documented by examples, returned to the client, and never too low."""

import gc
from typing import Any

import pytest
import strawberry
from hypothesis import given
from hypothesis import settings as profile

from graphql import GraphQLObjectType, GraphQLSchema, OperationDefinitionNode, parse
from segmentql.graphql.cost.field_cost import cost as declare_cost
from segmentql.graphql.cost.query_cost import MAX_COST, estimate
from segmentql.schema import make_schema
from segmentql.settings import Settings
from tests.back_dating import all_rows
from tests.conftest import Api, Sql
from tests.graphql.executor_helpers import selections
from tests.operations import make_segments, update_user_segments

CORE = make_schema()._schema
ALLOWED = Settings.model_fields["max_cost"].default


def cost(query: str, schema: GraphQLSchema = CORE, **variables: Any) -> int:
    document = parse(query)
    (operation,) = [n for n in document.definitions if isinstance(n, OperationDefinitionNode)]
    return estimate(schema, document, operation).of(variables)


TIMES = 'from: "2024-01-01T00:00:00Z", to: "2024-02-01T00:00:00Z"'
COSTS = {
    "{ __typename }": 0,
    "{ user(id: 1) { id createdAt } }": 1,
    "{ user(id: 1) { segments { slug } } }": 1 + 5,
    '{ user(id: 1) { isIn(slug: "A") } }': 2,
    '{ user(id: 1) { membership(slug: "A") { id } } }': 1 + 1 + 1,
    '{ usersById(ids: [1, 2]) { membership(slug: "A") { segment { slug } } } }': 2 * (1 + 1 + 2),
    "{ usersById(ids: [1, 2, 3]) { id } }": 3,
    "{ usersById(ids: 1) { id } }": 1,
    "{ usersById(ids: [1, 2]) { segments { slug } memberships { segment { slug } } } }": 2 * 16,
    '{ segment(slug: "A") { memberCount } }': 1 + 100,
    '{ segment(slug: "A") { memberCount(asOf: null) } }': 1 + 100,
    '{ segment(slug: "A") { memberCount(asOf: "2024-01-01T00:00:00Z") } }': 1 + 100 + 40,
    f'{{ segment(slug: "A") {{ memberCounts({TIMES}) {{ at count }} }} }}': 1 + 140 + 100,
    f'{{ segment(slug: "A") {{ memberCounts({TIMES}, points: 7) {{ count }} }} }}': 1 + 140 + 7,
    f'{{ segment(slug: "A") {{ memberCounts({TIMES}, points: null) {{ at }} }} }}': 1 + 140 + 100,
    f'{{ segment(slug: "A") {{ memberCounts({TIMES}, points: 501) {{ at }} }} }}': 1 + 140 + 500,
    "{ users { pageInfo { hasNextPage } } }": 1 + 1,
    "{ users { nodes { id } } }": 1 + 50,
    "{ users(first: 3) { nodes { id } } }": 1 + 3,
    "{ users(first: null) { nodes { id } } }": 1 + 50,
    "{ users(first: 3) { edges { cursor node { id } } nodes { id } } }": 1 + 3 * 2 + 3,
    "{ users(first: 100000) { nodes { id } } }": 1 + 100,  # rejected, but not for its cost
    "{ users(first: -1) { nodes { id } } }": 1,
    "{ users(first: 3) { ...P } } fragment P on UserConnection { nodes { ...U } }"
    " fragment U on User { segments { slug } }": 1 + 3 * 6,
    "{ users(first: 3) { ... on UserConnection { nodes { id } } } }": 1 + 3,
    "{ reports { nodes { downloadUrl } } }": 1 + 20 * 6,
    '{ segment(slug: "A") { name description } }': 1 + 1,
    '{ segment(slug: "A") { rollout { enrolled } } }': 1 + 1 + 100,
    '{ segment(slug: "A") { rollout { enrolled excluded } } }': 1 + 1 + 200,
    "{ users(first: 3) { edges { node { segments { slug } } } } }": 1 + 3 * (1 + 1 + 5),
    "{ users(first: 3) { a: nodes { id } b: nodes { id } } }": 1 + 3 + 3,
    "{ changes { cursor } }": 1,
    "{ changes(first: 7) { events { cursor } } }": 1 + 7,
    "{ changes(first: 7) { events { ... on MembershipEvent { entry { user { segments { id } } } } }"
    " } }": 1 + 7 * (1 + 1 + 1 + 5),
    '{ changes(first: 1000, filter: {slugs: ["A"]}) { events { at } } }': 1 + 1000 + 10,
    "{ changes(first: 1001) { events { at } } }": 1 + 1000,  # rejected, but not for its cost
    "subscription { changes(batch: 7) { events { ... on MembershipEvent { entry { id } } } } }": 1
    + 7 * 2,
    'mutation { a: createSegment(input: {slug: "A"}) { segment { id } errors { code } } }': 10 + 3,
    'mutation { updateSegmentMembers(input: {slug: "A", add: [1, 2], remove: 3, addKeys: null,'
    ' removeKeys: ["a"]}) { segment { id } counts { count } } }': 10 + 4 + 1 + 1 + 5,
    'mutation { updateSegmentMembers(input: {slug: "A"}) { errors { code } } }': 10 + 1 + 1,
    "mutation { setRollout(input: {}) { joining } }": 10 + 1,
    "mutation { setRollout(input: {dryRun: false}) { joining } }": 10 + 1,
    "mutation { setRollout(input: {dryRun: null}) { joining } }": 10 + 1,
    "mutation { setRollout(input: {dryRun: true}) { joining } }": 10 + 1 + 5_000,
    "mutation { cancelRollout(input: {dryRun: true}) { leaving } }": 10 + 1 + 100,
    "mutation { resumeRollout(input: {dryRun: true}) { errors { code } } }": 10 + 1 + 1,
    'mutation { createSegment(input: {slug: "A"}) { errors { ... on SegmentAlreadyExists {'
    " segment { memberCount } } } } }": 10 + 2 + 101,
}


@pytest.mark.parametrize(("query", "expected"), COSTS.items())
def test_estimated_cost_of_example_documents(query: str, expected: int) -> None:
    assert cost(query) == expected


def test_page_sizes_are_read_from_variables_and_their_defaults() -> None:
    page = "query($n: Int = 7) { users(first: $n) { nodes { id } } }"
    assert [cost(page), cost(page, n=3), cost(page, n=None)] == [8, 4, 51]
    many = "query($ids: [ID!]!) { usersById(ids: $ids) { segments { slug } } }"
    assert [cost(many, ids=[1] * 10), cost(many, ids="1"), cost(many)] == [60, 6, 6]


def test_lists_of_an_input_are_read_from_variables() -> None:
    field = "updateSegmentMembers(input: {}) {{ segment {{ id }} }}"
    whole = f"mutation($input: UpdateSegmentMembersInput!) {{ {field.format('$input')} }}"
    inputs: list[Any] = [
        {"add": ["1"] * 500, "remove": ["2"] * 300, "addKeys": ["a"] * 150, "removeKeys": ["b"]},
        {"add": "1", "remove": None},
        {},
        None,
        "x",
    ]
    assert [cost(whole, input=value) - 12 for value in inputs] == [951, 1, 0, 0, 0]
    literal = field.format('{slug: "A", add: $add, removeKeys: ["a", $key]}')
    parts = f"mutation($add: [ID!], $key: String!) {{ {literal} }}"
    assert [cost(parts, add=value) - 12 for value in (["1"] * 7, "1", None)] == [9, 3, 2]


def test_dry_run_is_read_from_variables() -> None:
    whole = "mutation($input: SetRolloutInput!) { setRollout(input: $input) { joining } }"
    inputs: list[Any] = [{"dryRun": True}, {"dryRun": False}, {"dryRun": None}, {}, None, "x"]
    assert [cost(whole, input=value) - 11 for value in inputs] == [5_000, 0, 0, 0, 0, 0]
    part = "mutation($dry: Boolean) { setRollout(input: {dryRun: $dry}) { joining } }"
    assert [cost(part, dry=value) - 11 for value in (True, False, None)] == [5_000, 0, 0]
    assert cost(part.replace("Boolean", "Boolean = true")) == 11 + 5_000


def test_number_of_points_is_read_from_variables() -> None:
    field = f"memberCounts({TIMES}, points: $n) {{ at }}"
    query = f'query($n: Int) {{ segment(slug: "A") {{ {field} }} }}'
    sizes: list[Any] = [3, 500, 501, None, "x"]
    assert [cost(query, n=size) - 1 - 140 for size in sizes] == [3, 500, 500, 100, 500]


@pytest.mark.parametrize("size", [100, 100.0])
def test_integral_float_variables_count_as_integers(size: Any) -> None:
    page = "query($n: Int) { users(first: $n) { nodes { id } } }"
    assert cost(page, n=size) == 1 + 100
    assert cost(page, n=size / 20) == 1 + 5


@pytest.mark.parametrize(
    "size",
    ["x", "3", True, False, 2.5, float("inf"), float("nan"), 1e300, [3], {"n": 3}, 10**30],
)
def test_unreadable_page_size_costs_the_maximum(size: Any) -> None:
    assert cost("query($n: Int) { users(first: $n) { nodes { id } } }", n=size) == 1 + 100


@strawberry.type
class Row:
    value: int


@strawberry.type
class Batch:
    """A page whose list has a name of its own."""

    events: list[Row]
    others: list[Row]
    cursor: str


@strawberry.type
class Pages:
    @strawberry.field(metadata=declare_cost(max_first=1000))  # type: ignore[untyped-decorator]
    def changes(self, first: int | None = 100) -> Batch:
        raise NotImplementedError

    @strawberry.field(metadata=declare_cost(max_first=20))  # type: ignore[untyped-decorator]
    def rejections(self, first: int | None = 10) -> list[Row]:
        raise NotImplementedError

    @strawberry.field
    def unsized(self, first: int | None) -> Batch:
        raise NotImplementedError


PAGES = strawberry.Schema(Pages)._schema


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("{ changes { events { value } } }", 1 + 100),
        ("{ changes { cursor } }", 1),
        ("{ changes(first: 1000) { events { value } } }", 1 + 1000),
        ("{ changes(first: 5000) { events { value } } }", 1 + 1000),
        ("{ changes(first: 700) { events { value } others { value } } }", 1 + 1400),
        ("{ changes(first: 700) { ...B } } fragment B on Batch { events { value } }", 1 + 700),
        ("{ rejections { value } }", 10),
        ("{ rejections(first: 15) { value } }", 15),
        ("{ rejections(first: 100) { value } }", 20),
        ("{ unsized(first: null) { events { value } } }", 1 + 100),
    ],
)
def test_page_without_a_size_costs_the_maximum_of_its_list(query: str, expected: int) -> None:
    assert cost(query, schema=PAGES) == expected


def test_cost_of_multiplying_fragments_is_computed_quickly() -> None:
    document = "query($n: Int) { users(first: $n) { ...F0 } } " + " ".join(
        f"fragment F{n} on UserConnection {{ nodes {{ segments {{ members(first: $n) {{"
        f" nodes {{ user {{ id }} }} ...G{n} ...G{n} }} }} }} }}"
        f" fragment G{n} on MembershipConnection {{ nodes {{ segment {{ members(first: $n) {{"
        f" ...G{n + 1} ...G{n + 1} nodes {{ id }} }} }} }} }}"
        for n in range(20)
    )
    document += " fragment G20 on MembershipConnection { nodes { id } }"
    assert cost(document, n=100) == MAX_COST


async def test_cost_and_allowance_are_returned_for_executed_operations(api: Api) -> None:
    async def extensions(query: str) -> Any:
        return (await api.http.post("/graphql", json={"query": query})).json().get("extensions")

    assert await extensions("{ users(first: 3) { nodes { id } } }") == {
        "cost": {"estimated": 4, "allowed": ALLOWED}
    }
    assert await extensions("{ user(id: 0) { id } }") == {
        "cost": {"estimated": 1, "allowed": ALLOWED}
    }
    assert await extensions("{ nope }") is None


async def test_too_expensive_operation_is_rejected_before_execution(api: Api, sql: Sql) -> None:
    before = await all_rows(sql)
    query = """mutation { createUser(input: {id: 1}) { user { segments { members(first: 100) {
      nodes { segment { members(first: 100) { nodes { id } } } } } } } } }"""
    error = await api.error(query)
    # A field of a mutation, its payload, the user, and 5 segments, each with a page of 100 rows,
    # each with a segment that has a page of 100 rows.
    value = 10 + 1 + 1 + 5 * (1 + 1 + 100 * (1 + 1 + 1 + 100))
    assert error["extensions"] == {
        "code": "LIMIT_EXCEEDED",
        "argument": "cost",
        "limit": ALLOWED,
        "value": value,
    }
    assert await all_rows(sql) == before


def count_objects(value: Any) -> int:
    """Return the number of objects in a response."""
    if isinstance(value, dict):
        return 1 + sum(map(count_objects, value.values()))
    return sum(map(count_objects, value)) if isinstance(value, list) else 0


# If a field of a random query fails, graphql-core cancels the coroutines of its siblings, and some
# of them have not started yet. They are collected before the test ends.
@pytest.mark.filterwarnings("ignore:coroutine 'Executor.* was never awaited:RuntimeWarning")
async def test_response_has_no_more_objects_than_estimated(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B", "C")
    for user_id in (1, 2, 3):
        await update_user_segments(api, user_id, add=["A", "B", "C"])
    queries: list[str] = []
    root = CORE.query_type
    assert isinstance(root, GraphQLObjectType)

    @profile(max_examples=200)
    @given(selections(root, 6))
    def collect(body: str) -> None:
        queries.append(body)

    collect()
    checked = 0
    for query in queries:
        body = (await api.http.post("/graphql", json={"query": query})).json()
        if "extensions" in body and body["data"]:
            object_count = count_objects(body["data"]) - 1
            assert object_count <= body["extensions"]["cost"]["estimated"], query
            checked = max(checked, object_count)
    gc.collect()
    assert checked > 10, "the random queries found nothing"
