"""The size of a response is limited for queries and mutations, with and without plans."""

import asyncio
import resource
from typing import Any

import orjson
import pytest

from segmentql.adapters.database import Database
from segmentql.graphql.context import Context
from segmentql.graphql.cost.document_limits import DocumentLimits
from segmentql.graphql.execution.executor import ExecutionResponse, GraphQLExecutor
from segmentql.graphql.execution.request import Request
from segmentql.graphql.execution.response_size import ResponseTooLarge, serialize_in_slices
from segmentql.graphql.types.errors import format_unread_response
from segmentql.metrics import REQUESTS_REJECTED
from segmentql.settings import Settings
from tests.back_dating import all_rows
from tests.conftest import Api, Sql, serving
from tests.graphql.executor_helpers import SCHEMA, make_context
from tests.operations import make_segments

LIMIT = 20_000
LIMITS = DocumentLimits(
    tokens=10_000,
    depth=50,
    aliases=1000,
    directives=1000,
    root_fields=1000,
    list_items=1000,
    cost=1_000_000,
    response_bytes=LIMIT,
)
EXECUTORS = {
    "plans": GraphQLExecutor(SCHEMA, LIMITS),
    "graphql-core": GraphQLExecutor(SCHEMA, LIMITS, plans=False),
}
DESCRIPTION = "d" * 4000
ALIAS = "a" * 250


@pytest.fixture
async def described_segments(database: Database, sql: Sql, settings: Settings) -> Context:
    """Store ten segments with descriptions, and user 1 in each."""
    await sql.execute(
        """
        INSERT INTO users SELECT n, now() FROM generate_series(1, 100) AS n;
        INSERT INTO segments (slug, description, created_at, updated_at)
        SELECT 'S' || n, repeat('d', 4000), now(), now() FROM generate_series(1, 10) AS n;
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
        SELECT 1, id, now(), now(), 'MANUAL' FROM segments;
        """
    )
    return make_context(database, settings)


def assert_too_large(answer: ExecutionResponse, *, changes: bool) -> None:
    """Assert that the response says only that it would be too large."""
    assert answer.executed
    assert answer.body["data"] is None
    (error,) = answer.body["errors"]
    extensions = error["extensions"]
    assert (extensions["code"], extensions["limit"]) == ("LIMIT_EXCEEDED", LIMIT)
    assert LIMIT < extensions["value"] < 3 * LIMIT
    assert error["message"].startswith(f"The response is larger than {LIMIT} bytes.")
    assert ("perhaps this field. Read the data to see" in error["message"]) is changes
    assert extensions.get("outcomeUnknown", False) is changes


def too_large_responses() -> float:
    return float(REQUESTS_REJECTED.labels("size")._value.get())


LARGE = {
    "texts in a list": "{ segments(first: 10) { nodes { description } } }",
    "texts under aliases": '{ segment(slug: "S1") {'
    + " ".join(f"a{n}: description" for n in range(10))
    + "} }",
    "aliases in a nullable list": f"{{ usersById(ids: {list(range(1, 101))}) {{ {ALIAS}: id }} }}",
    "aliases under @include": "query($y: Boolean = true) { users(first: 100) { nodes {"
    f" {ALIAS}: id @include(if: $y) }} }} }}",
    "a text of another field": "{ user(id: 1) { memberships { segment { description } } } }",
    "several root fields": "{"
    + " ".join(f"a{n}: segments(first: 2) {{ nodes {{ description }} }}" for n in range(5))
    + "}",
    "edges": "{ users(first: 100) { edges { cursor node { createdAt a: createdAt b: createdAt"
    " c: createdAt d: createdAt e: createdAt } } } }",
    "names of types": "{ users(first: 100) { nodes { "
    + " ".join(f"a{n}: __typename" for n in range(20))
    + " } } }",
    "introspection": "{ __schema { types { name description fields { name description } } } }",
}


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("kind", LARGE)
async def test_query_with_a_too_large_response_fails_with_one_error(
    described_segments: Context, executor: str, kind: str
) -> None:
    rejected = too_large_responses()
    answer = await EXECUTORS[executor].execute(
        Request(LARGE[kind]), described_segments, queries_only=True
    )
    assert_too_large(answer, changes=False)
    assert too_large_responses() == rejected + 1


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_response_at_the_limit_is_sent(described_segments: Context, executor: str) -> None:
    for query in (
        "{ segments(first: 4) { nodes { slug name description createdAt version deletedAt } } }",
        "{ segments(first: 4) { edges { cursor node { description } } } }",
        "{ users(first: 100) { nodes { id createdAt segments { slug } } pageInfo { endCursor } } }",
        '{ user(id: 1) { isIn(slug: "S1") memberships { id cause expiresAt } } missing:'
        " user(id: 1000) { id } }",
        "{ segments(first: 2) { nodes { memberCount rollout { status } } } }",
    ):
        answer = await EXECUTORS[executor].execute(
            Request(query), described_segments, queries_only=True
        )
        assert "errors" not in answer.body, query
        actual = len(orjson.dumps(answer.body["data"]))
        assert actual / 6 < answer.size <= actual + 10, query


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_mutation_with_a_too_large_response_was_executed(
    described_segments: Context, sql: Sql, executor: str
) -> None:
    mutation = 'mutation { updateUserSegments(input: {userId: 50, add: ["S1"]}) { user { %s } } }'
    fields = " ".join(f"a{n}: segments {{ description }}" for n in range(10))
    answer = await EXECUTORS[executor].execute(
        Request(mutation % fields), described_segments, queries_only=False
    )
    assert_too_large(answer, changes=True)
    assert await sql.fetchval("SELECT count(*) FROM memberships WHERE user_id = 50") == 1


async def test_second_mutation_is_skipped_after_a_too_large_response(
    described_segments: Context, sql: Sql
) -> None:
    fields = " ".join(f"a{n}: segments {{ description }}" for n in range(10))
    query = (
        'mutation { updateUserSegments(input: {userId: 50, add: ["S1"]})'
        f" {{ user {{ {fields} }} }}"
        " deleteUser(input: {id: 2}) { deletedId } }"
    )
    answer = await EXECUTORS["plans"].execute(
        Request(query), described_segments, queries_only=False
    )
    assert_too_large(answer, changes=True)
    assert await sql.fetchval("SELECT count(*) FROM users WHERE id = 2") == 1


async def test_size_count_restarts_after_a_failed_plan(described_segments: Context) -> None:
    query = '{ segments(first: 3) { nodes { description } } bad: user(id: "zero") { id } }'
    answer = await EXECUTORS["plans"].execute(Request(query), described_segments, queries_only=True)
    assert [error["path"] for error in answer.body["errors"]] == [["bad"]]
    assert len(answer.body["data"]["segments"]["nodes"]) == 3


async def test_large_response_is_serialized_in_slices() -> None:
    nested: Any = {
        "data": {
            "users": {
                "nodes": [
                    {
                        "id": str(n),
                        "segments": [{"slug": "\N{GRINNING FACE}\n\x01", "n": n}] * (n % 25),
                    }
                    for n in range(3000)
                ],
                "empty": [],
                "nothing": {},
            },
            "mixed": [None, {"a": None}, {"b": [1, 2.5, True]}, [], [[]], "x"] * 30,
        },
        "extensions": {"cost": {"estimated": 1}},
    }
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    chunks = await serialize_in_slices(nested, limit=10**7)
    task.cancel()
    assert b"".join(chunks) == orjson.dumps(nested)
    assert turns >= 2
    with pytest.raises(ResponseTooLarge):
        await serialize_in_slices(nested, limit=500_000)


async def test_response_too_large_by_its_escapes_is_rejected(settings: Settings, sql: Sql) -> None:
    """A control character is counted as one character, and JSON writes six."""
    rejected = too_large_responses()
    async with serving(settings.model_copy(update={"max_response_bytes": LIMIT})) as api:
        await sql.execute(
            "INSERT INTO segments (slug, description, created_at, updated_at)"
            " VALUES ('A', repeat(E'\\x01', 4000), now(), now())"
        )
        error = await api.error('{ segment(slug: "A") { description } }')
        assert error["extensions"]["code"] == "LIMIT_EXCEEDED"
        assert too_large_responses() == rejected + 1
        error = await api.error(
            'mutation { updateSegment(input: {slug: "A", name: "New"})'
            " { segment { name description } }"
            " createUser(input: {id: 5}) { user { id } } }"
        )
        assert error["message"].endswith(
            " All fields of the mutation were executed. Read the data to see its changes."
        )
        assert error["extensions"]["outcomeUnknown"] is True
        assert await api('{ segment(slug: "A") { name } user(id: 5) { id } }') == {
            "segment": {"name": "New"},
            "user": {"id": "5"},
        }


@pytest.mark.parametrize("is_mutation", [False, True])
def test_dropped_response_says_whether_changes_may_exist(*, is_mutation: bool) -> None:
    error = format_unread_response(is_mutation=is_mutation)
    assert error["extensions"] == {
        "code": "UNAVAILABLE",
        **({"outcomeUnknown": True} if is_mutation else {}),
    }
    assert ("All fields of the mutation were executed." in error["message"]) is is_mutation


async def test_long_alias_cannot_multiply_the_response_size(api: Api, sql: Sql) -> None:
    """A known attack: 207 kB of document for 800 MB, at a sixth of the allowed cost."""
    await sql.execute("INSERT INTO users SELECT n, now() FROM generate_series(1, 1000) AS n")
    before = await all_rows(sql)
    roots = " ".join(f"a{n}: usersById(ids: $ids) {{ ...f }}" for n in range(4))
    aliases = " ".join(f"{n:03}".rjust(255, "a") + ": id" for n in range(90))
    ids = [str(n) for n in range(1, 1001)]
    for fields, argument in (
        ("a" * 200_000 + ": id", "name characters"),
        (aliases, None),
    ):
        error = await api.error(
            f"query($ids: [ID!]!) {{ {roots} }} fragment f on User {{ {fields} }}", ids=ids
        )
        assert error["extensions"]["code"] == "LIMIT_EXCEEDED"
        assert error["extensions"].get("argument") == argument
    assert await all_rows(sql) == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1_000_000  # KiB
    await make_segments(api, "A")
