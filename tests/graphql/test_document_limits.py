"""A document at a limit is executed, and one beyond it is rejected without effect."""

import time
from typing import Any

import orjson
import pytest

from graphql import parse
from segmentql.graphql.cost.document_limits import (
    MAX_FRAGMENTS,
    MAX_REPEATED_FIELDS,
    MAX_VARIABLE_VALUES,
)
from segmentql.graphql.execution.document_cache import (
    MAX_CACHED_CHARACTERS,
    MAX_CACHED_DOCUMENT_CHARACTERS,
    LruDocumentCache,
    PreparedDocument,
)
from segmentql.settings import Settings
from tests.back_dating import all_rows
from tests.conftest import Api, Sql
from tests.graphql.test_http import post

DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}
TOKENS = DEFAULTS["max_tokens"]
DEPTH = DEFAULTS["max_depth"]
ALIASES = DEFAULTS["max_aliases"]
DIRECTIVES = DEFAULTS["max_directives"]
ROOT_FIELDS = DEFAULTS["max_root_fields"]
LIST_ITEMS = DEFAULTS["max_list_items"]


def token_document(count: int) -> str:
    """Return a document of a number of tokens, in one list argument without repeated aliases."""
    head = len(["{", "usersById", "(", "ids", ":", "[", "]", ")", "{", "id", "}", "}"])
    return "{ usersById(ids: [" + "1 " * (count - head) + "]) { id } }"


def alias_document(count: int) -> str:
    return "{ user(id: 1) { " + " ".join(f"a{n}: id" for n in range(count)) + " } }"


def directive_document(count: int) -> str:
    return "{ user(id: 1) { " + "id @include(if: true) " * count + "} }"


def root_field_document(count: int) -> str:
    half = count // 2
    inside = " ".join(f"f{n}: __typename" for n in range(count - half))
    return (
        "{ ...F "
        + " ".join(f"r{n}: __typename" for n in range(half))
        + " } fragment F on Query { "
        + inside
        + " }"
    )


def fragment_document(count: int) -> str:
    spreads = " ".join(f"...F{n}" for n in range(count))
    return f"{{ user(id: 1) {{ {spreads} }} }} " + " ".join(
        f"fragment F{n} on User {{ id }}" for n in range(count)
    )


def repeat_document(count: int) -> str:
    return (
        "{ user(id: 1) { "
        + "id " * (count // 2)
        + "... on User { "
        + "id " * (count - count // 2 + 1)
        + "} } }"
    )


def list_document(count: int) -> str:
    return "{ usersById(ids: [" + "1," * count + "]) { id } }"


CASES = [
    (alias_document, "aliases", ALIASES),
    (directive_document, "directives", DIRECTIVES),
    (root_field_document, "root fields", ROOT_FIELDS),
    (fragment_document, "fragments", MAX_FRAGMENTS),
    (repeat_document, "repeated fields", MAX_REPEATED_FIELDS),
]


async def rejection(api: Api, query: str, **variables: Any) -> Any:
    """Return the extensions of the only error of a document that was not executed."""
    body = await api.body(query, **variables)
    assert list(body) == ["errors"], body
    (error,) = body["errors"]
    return error["extensions"]


@pytest.mark.parametrize(("document", "what", "limit"), CASES, ids=lambda case: str(case)[:20])
async def test_document_at_the_limit_runs_and_beyond_it_is_rejected(
    api: Api, document: Any, what: str, limit: int
) -> None:
    assert "errors" not in await api.body(document(limit))
    assert await rejection(api, document(limit + 1)) == {
        "code": "LIMIT_EXCEEDED",
        "argument": what,
        "limit": limit,
        "value": limit + 1,
    }


async def test_token_count_stops_at_the_limit(api: Api) -> None:
    # The list is longer than the field allows, and the error of the field shows the execution.
    assert list(await api.body(token_document(TOKENS // 3))) == ["data", "errors"]
    for count in (TOKENS + 1, 10 * TOKENS):
        assert await rejection(api, token_document(count)) == {
            "code": "LIMIT_EXCEEDED",
            "argument": "tokens",
            "limit": TOKENS,
            "value": TOKENS + 1,
        }


async def test_depth_counts_fields_through_fragments(api: Api) -> None:
    def chain(length: int) -> str:
        """Return one fragment per level: nodes, user, memberships, and so on."""
        below = "{ id }"
        for level in range(length - 2):
            below = f"{{ {'segment' if level % 2 else 'user'} {below} }}"
        return below

    # The types do not matter, because limits are checked before validation.
    assert (await rejection(api, "{ users " + chain(DEPTH + 1) + " }"))["value"] == DEPTH + 1
    fragments = " ".join(
        f"fragment F{n} on User {{ segments {{ members {{ nodes {{ user {{ ...F{n + 1} }}"
        " } } } }"
        for n in range(10)
    )
    beyond = await rejection(
        api, f"{{ user(id: 1) {{ ...F0 }} }} {fragments} fragment F10 on User {{ id }}"
    )
    assert (beyond["argument"], beyond["limit"]) == ("depth", DEPTH)
    ok = (
        "{ user(id: 1) "
        + "{ segments { members(first: 1) { nodes { user " * 4
        + "{ id }"
        + (" } } } }" * 4)
        + " }"
    )
    assert "errors" not in await api.body(ok)


async def test_list_length_is_limited_in_documents_and_variables(api: Api) -> None:
    query = "query($ids: [ID!]!) { usersById(ids: $ids) { id } }"
    # the field rejects it, because it allows fewer
    at = await api.body(query, ids=["1"] * LIST_ITEMS)
    assert at["errors"][0]["extensions"]["argument"] == "ids"
    beyond = {"code": "LIMIT_EXCEEDED", "limit": LIST_ITEMS, "value": LIST_ITEMS + 1}
    assert await rejection(api, query, ids=["1"] * (LIST_ITEMS + 1)) == {
        **beyond,
        "argument": "$ids",
    }
    assert await rejection(api, list_document(LIST_ITEMS + 1)) == {
        **beyond,
        "argument": "list items",
    }
    create = (
        "mutation($input: CreateSegmentInput!) { createSegment(input: $input) { segment { id } } }"
    )
    stages = [{"percent": 1}] * (LIST_ITEMS + 1)
    inside = {"slug": "A", "rollout": {"stages": stages}}
    assert await rejection(api, create, input=inside) == {**beyond, "argument": "$input"}


async def test_total_size_of_variables_is_limited(api: Api) -> None:
    lists = [[1]] * 1000
    body = await api.body("{ __typename }", **{f"v{n}": lists for n in range(5)})
    assert body == {"data": {"__typename": "Query"}}
    assert await rejection(api, "{ __typename }", **{f"v{n}": lists for n in range(6)}) == {
        "code": "LIMIT_EXCEEDED",
        "argument": "variables",
        "limit": MAX_VARIABLE_VALUES,
        "value": 11_000,
    }


HOSTILE = {
    "open braces": "{" * 200_000,
    "open brackets": "{ a(b: " + "[" * 3_900,
    "nested lists": "{ usersById(ids: " + "[" * 900 + "]" * 900 + ") { id } }",
    "nested objects": "{ a(b: " + "{c: " * 600 + "1" + "}" * 600 + ") }",
    "nested fields": "{ a " * 900 + "}" * 900,
    "nested inline fragments": "{ ... on Query " * 900 + "{ a }" + "}" * 900,
    "comments": "#" * 200_000 + "\n{ __typename }",
    "one string": '{ segment(slug: "' + "a" * 200_000 + '") { id } }',
    "ten thousand aliases": "{ " + " ".join(f"a{n}: __typename" for n in range(10_000)) + " }",
    "same field again": "{ user(id: 1) { " + "segments { slug } " * 900 + "} }",
    "fragments that double": "{ ...F0 } "
    + " ".join(
        f"fragment F{n} on Query {{ a{n}: __typename ...F{n + 1} b{n}: __typename ...F{n + 1} }}"
        for n in range(49)
    )
    + " fragment F49 on Query { z: __typename }",
    "fields that double": "{ user(id: 1) { ...F0 } } "
    + " ".join(
        f"fragment F{n} on User {{ a: segments {{ members {{ nodes {{ user {{ ...F{n + 1} }} }}"
        f" edges {{ node {{ user {{ ...F{n + 1} }} }} }} }} }} }}"
        for n in range(4)
    )
    + " fragment F4 on User { id }",
    "a fragment of itself": "{ user(id: 1) { ...F } } fragment F on User { segments { ...G } ...F }"
    " fragment G on Segment { members { nodes { user { ...F } } } }",
    "circular introspection": "{ __schema { types { fields { type { fields { type { fields { type"
    " { fields { type { name } } } } } } } } } } }",
    "ten thousand directives": "{ __typename " + "@a " * 3_900 + "}",
}


@pytest.mark.parametrize("document", HOSTILE.values(), ids=HOSTILE)
async def test_hostile_document_is_rejected_quickly_without_effect(
    api: Api, sql: Sql, document: str
) -> None:
    before = await all_rows(sql)
    began = time.monotonic()
    response = await post(api, orjson.dumps({"query": document}))
    assert response.status_code in {200, 413}
    body = response.json()
    assert [e["extensions"]["code"] for e in body.get("errors", [])] != ["INTERNAL"]
    if document is HOSTILE["comments"] or document is HOSTILE["one string"]:
        assert "INTERNAL" not in str(body)
    elif document is not HOSTILE["fragments that double"]:
        assert list(body) == ["errors"]
    assert time.monotonic() - began < 10  # no elapsed time: they would take minutes
    assert await all_rows(sql) == before


async def test_deeply_nested_variables_cause_no_fault(api: Api) -> None:
    query = "query($ids: [ID!]!) { usersById(ids: $ids) { id } }"
    deep: Any = "1"
    for _ in range(800):
        deep = [deep]
    body = await api.body(query, ids=deep)
    assert {e["extensions"]["code"] for e in body["errors"]} == {"BAD_REQUEST"}


def test_document_cache_is_bounded_in_count_and_size() -> None:
    documents = [PreparedDocument(parse("{ a }")) for _ in range(4)]
    remembered = LruDocumentCache(2)
    for name, document in zip("abc", documents, strict=False):
        remembered.put(name, document)
        remembered.get("a")
    assert [remembered.get(name) for name in "abc"] == [documents[0], None, documents[2]]
    large = "x" * MAX_CACHED_DOCUMENT_CHARACTERS
    remembered = LruDocumentCache(1000)
    for number in range(100):
        remembered.put(f"{number:02}{large[2:]}", documents[0])
    cached = [n for n in range(100) if remembered.get(f"{n:02}{large[2:]}")]
    assert cached == list(range(100 - MAX_CACHED_CHARACTERS // MAX_CACHED_DOCUMENT_CHARACTERS, 100))
    remembered.put(f"{large}x", documents[1])
    assert remembered.get(f"{large}x") is None
