"""Limits of documents: at the limit one is answered, beyond it refused, and nothing is done."""

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


def of_tokens(count: int) -> str:
    """Tokens without repeats: the list of one argument."""
    head = len(["{", "usersById", "(", "ids", ":", "[", "]", ")", "{", "id", "}", "}"])
    return "{ usersById(ids: [" + "1 " * (count - head) + "]) { id } }"


def of_aliases(count: int) -> str:
    return "{ user(id: 1) { " + " ".join(f"a{n}: id" for n in range(count)) + " } }"


def of_directives(count: int) -> str:
    return "{ user(id: 1) { " + "id @include(if: true) " * count + "} }"


def of_root_fields(count: int) -> str:
    half = count // 2
    inside = " ".join(f"f{n}: __typename" for n in range(count - half))
    return (
        "{ ...F "
        + " ".join(f"r{n}: __typename" for n in range(half))
        + " } fragment F on Query { "
        + inside
        + " }"
    )


def of_fragments(count: int) -> str:
    spreads = " ".join(f"...F{n}" for n in range(count))
    return f"{{ user(id: 1) {{ {spreads} }} }} " + " ".join(
        f"fragment F{n} on User {{ id }}" for n in range(count)
    )


def of_repeats(count: int) -> str:
    return (
        "{ user(id: 1) { "
        + "id " * (count // 2)
        + "... on User { "
        + "id " * (count - count // 2 + 1)
        + "} } }"
    )


def of_list(count: int) -> str:
    return "{ usersById(ids: [" + "1," * count + "]) { id } }"


CASES = [
    (of_aliases, "aliases", ALIASES),
    (of_directives, "directives", DIRECTIVES),
    (of_root_fields, "root fields", ROOT_FIELDS),
    (of_fragments, "fragments", MAX_FRAGMENTS),
    (of_repeats, "repeated fields", MAX_REPEATED_FIELDS),
]


async def refused(api: Api, query: str, **variables: Any) -> Any:
    """The extensions of the only error of a document that was not executed."""
    body = await api.body(query, **variables)
    assert list(body) == ["errors"], body
    (error,) = body["errors"]
    return error["extensions"]


@pytest.mark.parametrize(("document", "what", "limit"), CASES, ids=lambda case: str(case)[:20])
async def test_at_the_limit_a_document_is_answered_and_beyond_it_refused(
    api: Api, document: Any, what: str, limit: int
) -> None:
    assert "errors" not in await api.body(document(limit))
    assert await refused(api, document(limit + 1)) == {
        "code": "LIMIT_EXCEEDED",
        "argument": what,
        "limit": limit,
        "value": limit + 1,
    }


async def test_tokens_are_counted_no_further_than_the_limit(api: Api) -> None:
    # What is in the list is too much for the field, which is told by the field: it was executed.
    assert list(await api.body(of_tokens(TOKENS // 3))) == ["data", "errors"]
    for count in (TOKENS + 1, 10 * TOKENS):
        assert await refused(api, of_tokens(count)) == {
            "code": "LIMIT_EXCEEDED",
            "argument": "tokens",
            "limit": TOKENS,
            "value": TOKENS + 1,
        }


async def test_depth_counts_fields_also_through_fragments(api: Api) -> None:
    def chain(length: int) -> str:
        """A fragment a level: nodes, user, memberships, and so on."""
        below = "{ id }"
        for level in range(length - 2):
            below = f"{{ {'segment' if level % 2 else 'user'} {below} }}"
        return below

    # Types do not matter: limits come before validation.
    assert (await refused(api, "{ users " + chain(DEPTH + 1) + " }"))["value"] == DEPTH + 1
    fragments = " ".join(
        f"fragment F{n} on User {{ segments {{ members {{ nodes {{ user {{ ...F{n + 1} }}"
        " } } } }"
        for n in range(10)
    )
    beyond = await refused(
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


async def test_lists_are_limited_in_documents_and_in_variables_however_deep(api: Api) -> None:
    query = "query($ids: [ID!]!) { usersById(ids: $ids) { id } }"
    at = await api.body(query, ids=["1"] * LIST_ITEMS)  # the field takes fewer, and says so
    assert at["errors"][0]["extensions"]["argument"] == "ids"
    beyond = {"code": "LIMIT_EXCEEDED", "limit": LIST_ITEMS, "value": LIST_ITEMS + 1}
    assert await refused(api, query, ids=["1"] * (LIST_ITEMS + 1)) == {
        **beyond,
        "argument": "$ids",
    }
    assert await refused(api, of_list(LIST_ITEMS + 1)) == {**beyond, "argument": "list items"}
    create = (
        "mutation($input: CreateSegmentInput!) { createSegment(input: $input) { segment { id } } }"
    )
    stages = [{"percent": 1}] * (LIST_ITEMS + 1)
    inside = {"slug": "A", "rollout": {"stages": stages}}
    assert await refused(api, create, input=inside) == {**beyond, "argument": "$input"}


async def test_variables_may_not_hold_more_than_so_much_in_all(api: Api) -> None:
    lists = [[1]] * 1000
    body = await api.body("{ __typename }", **{f"v{n}": lists for n in range(5)})
    assert body == {"data": {"__typename": "Query"}}
    assert await refused(api, "{ __typename }", **{f"v{n}": lists for n in range(6)}) == {
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
async def test_hostile_documents_are_refused_soon_and_change_nothing(
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
    assert time.monotonic() - began < 10  # no figure: they would take minutes
    assert await all_rows(sql) == before


async def test_deep_variables_are_no_fault(api: Api) -> None:
    query = "query($ids: [ID!]!) { usersById(ids: $ids) { id } }"
    deep: Any = "1"
    for _ in range(800):
        deep = [deep]
    body = await api.body(query, ids=deep)
    assert {e["extensions"]["code"] for e in body["errors"]} == {"BAD_REQUEST"}


def test_what_is_remembered_is_bounded_in_number_and_in_size() -> None:
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
    kept = [n for n in range(100) if remembered.get(f"{n:02}{large[2:]}")]
    assert kept == list(range(100 - MAX_CACHED_CHARACTERS // MAX_CACHED_DOCUMENT_CHARACTERS, 100))
    remembered.put(f"{large}x", documents[1])
    assert remembered.get(f"{large}x") is None
