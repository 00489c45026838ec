"""The header `Idempotency-Key` and the directive `@idempotent` of a request."""

from typing import Any

import pytest

from tests.conftest import Api, Sql, serving
from tests.idempotency.cases import Case, send

CREATE = Case("createUser", {}, "user { id }")
SELECTION = "{ user { id } }"
ALLOWED = "1 to 255 characters, without control characters and unpaired surrogates"


def create(name: str, key: str | None = None, *, user_id: int | None = None) -> str:
    directive = f'@idempotent(key: "{key}")' if key is not None else ""
    given = f"id: {user_id}" if user_id else ""
    return f"{name}: createUser(input: {{{given}}}) {directive} {SELECTION}"


async def rejection(api: Api, document: str, **headers: str) -> Any:
    """Return the only error of a request that must be rejected before its execution."""
    body = await send(api, document, {}, **headers)
    assert list(body) == ["errors"]
    (error,) = body["errors"]
    assert error["extensions"]["code"] == "BAD_REQUEST"
    return error


async def users(sql: Sql) -> list[int]:
    return [row[0] for row in await sql.fetch("SELECT id FROM users ORDER BY id")]


@pytest.mark.parametrize(
    "document",
    [
        f"mutation {{ {create('a')} {create('b')} }}",
        f"mutation {{ {create('a', 'k')} {create('b')} }}",
        f"mutation {{ {create('a')} ...F }} fragment F on Mutation {{ {create('b')} }}",
        "mutation { __typename }",
        "{ users { nodes { id } } }",
    ],
)
async def test_header_needs_exactly_one_mutation(api: Api, sql: Sql, document: str) -> None:
    error = await rejection(api, document, **{"idempotency-key": "k"})
    assert error["message"] == (
        "Idempotency-Key is not valid: the operation does not have exactly one mutation. Allowed:"
        " the header with an operation with one mutation; @idempotent for several."
    )
    assert await users(sql) == []


async def test_header_with_a_subscription_is_rejected(api: Api) -> None:
    response = await api.http.post(
        "/graphql",
        json={"query": "subscription { changes { cursor } }"},
        headers={"accept": "text/event-stream", "idempotency-key": "k"},
    )
    assert "the operation does not have exactly one mutation" in response.text


async def test_header_and_typename_are_allowed(api: Api, sql: Sql) -> None:
    document = f"mutation {{ __typename {create('a')} }}"
    for _ in range(2):
        body = await send(api, document, {}, **{"idempotency-key": "k"})
        assert body == {"data": {"__typename": "Mutation", "a": {"user": {"id": "1"}}}}
    assert await users(sql) == [1]


@pytest.mark.parametrize(
    "document",
    [
        'mutation { createUser(input: {}) { user { id @idempotent(key: "k") } } }',
        'mutation { createUser(input: {}) { user @idempotent(key: "k") { id } } }',
        'mutation { __typename @idempotent(key: "k") }',
        '{ users @idempotent(key: "k") { nodes { id } } }',
        "query($key: String!) { users @idempotent(key: $key) { nodes { id } } }",
        'subscription { changes @idempotent(key: "k") { cursor } }',
    ],
)
async def test_directive_on_another_field_is_rejected(api: Api, sql: Sql, document: str) -> None:
    error = await rejection(api, document)
    assert error["message"] == "Only a field of Mutation can have @idempotent."
    assert await users(sql) == []


async def test_directive_on_a_fragment_is_rejected(api: Api, sql: Sql) -> None:
    document = f'mutation {{ ... on Mutation @idempotent(key: "k") {{ {create("a")} }} }}'
    error = await rejection(api, document)
    assert "may not be used on" in error["message"]
    assert await users(sql) == []


KEYS = [
    ("a", True),
    ("ä" * 255, True),
    ("\U0001f600 and a space", True),
    ("", False),
    ("x" * 256, False),
    ("line\nfeed", False),
    ("nul\0", False),
    ("\x85", False),
]


@pytest.mark.parametrize(("key", "is_valid"), KEYS)
async def test_form_of_a_key_in_a_variable(api: Api, sql: Sql, key: str, *, is_valid: bool) -> None:
    document = (
        f"mutation($key: String!) {{ createUser(input: {{}}) @idempotent(key: $key) {SELECTION} }}"
    )
    for _ in range(2):
        body = await send(api, document, {"key": key})
        if is_valid:
            assert body == {"data": {"createUser": {"user": {"id": "1"}}}}
        else:
            (error,) = body["errors"]
            assert error["extensions"] == {
                "code": "BAD_REQUEST",
                "argument": "@idempotent",
                "allowed": ALLOWED,
            }
    assert await users(sql) == ([1] if is_valid else [])


@pytest.mark.parametrize("key", ["", "x" * 256, b"\xff"])
async def test_invalid_header_is_rejected(api: Api, sql: Sql, key: Any) -> None:
    error = await rejection(api, CREATE.document(), **{"idempotency-key": key})
    assert error["extensions"]["argument"] == "Idempotency-Key"
    assert error["extensions"]["allowed"] == ALLOWED
    assert await users(sql) == []


async def test_header_is_utf_8(api: Api, sql: Sql) -> None:
    header: Any = "clé".encode()
    await send(api, CREATE.document(), {"input": {}}, **{"idempotency-key": header})
    body = await send(api, CREATE.document('@idempotent(key: "clé")'), {"input": {}})
    assert body["data"]["payload"]["user"] == {"id": "1"}
    assert await sql.fetchval("SELECT key FROM idempotency_keys") == "clé"


async def test_repeated_header_is_rejected(api: Api, sql: Sql) -> None:
    response = await api.http.post(
        "/graphql",
        json={"query": f"mutation {{ {create('a')} }}"},
        headers=[("Idempotency-Key", "a"), ("idempotency-key", "b")],
    )
    assert response.status_code == 400
    assert "more than one idempotency-key header" in response.text
    assert await users(sql) == []


async def test_header_and_directive_must_not_differ(api: Api, sql: Sql) -> None:
    document = f"mutation {{ {create('a', 'k')} }}"
    error = await rejection(api, document, **{"idempotency-key": "other"})
    assert error["message"] == (
        "a is not valid: the mutation has two idempotency keys. Allowed: one key."
    )
    twice = f"mutation {{ {create('a', 'k')} {create('a', 'other')} }}"
    assert (await rejection(api, twice))["message"] == error["message"]
    assert await users(sql) == []
    body = await send(api, document, {}, **{"idempotency-key": "k"})
    assert body == {"data": {"a": {"user": {"id": "1"}}}}


@pytest.mark.parametrize("value", [5, None, ["k"]])
async def test_variable_that_is_no_string_is_rejected(api: Api, sql: Sql, value: Any) -> None:
    for kind in ("String!", 'String = "k"'):
        document = (
            f"mutation($key: {kind}) {{"
            f" createUser(input: {{}}) @idempotent(key: $key) {SELECTION} }}"
        )
        body = await send(api, document, {"key": value})
        assert {error["extensions"]["code"] for error in body["errors"]} == {"BAD_REQUEST"}
    assert await users(sql) == []


async def test_default_of_a_variable_is_the_key(api: Api, sql: Sql) -> None:
    document = (
        'mutation($key: String = "k") {'
        f" createUser(input: {{}}) @idempotent(key: $key) {SELECTION} }}"
    )
    await send(api, document, {})
    assert await sql.fetchval("SELECT key FROM idempotency_keys") == "k"


async def test_several_mutations_have_a_key_each(api: Api, sql: Sql) -> None:
    """The last two have the same key, so that the last one repeats the one before."""
    document = (
        f"mutation {{ {create('a', 'one')} {create('b')} {create('c', 'two')} {create('d', 'two')}"
        " __typename }"
    )
    ids = []
    for _ in range(2):
        data = (await send(api, document, {}))["data"]
        ids.append([data[name]["user"]["id"] for name in "abcd"])
    assert ids == [["1", "2", "3", "3"], ["1", "4", "3", "3"]]
    assert await users(sql) == [1, 2, 3, 4]


async def test_skipped_mutation_uses_no_key(api: Api, sql: Sql) -> None:
    document = (
        "mutation($skip: Boolean!) { createUser(input: {})"
        f' @idempotent(key: "k") @skip(if: $skip) {SELECTION} }}'
    )
    assert await send(api, document, {"skip": True}) == {"data": {}}
    assert await sql.fetchval("SELECT count(*) FROM idempotency_keys") == 0
    for _ in range(2):
        body = await send(api, document, {"skip": False})
        assert body == {"data": {"createUser": {"user": {"id": "1"}}}}


async def test_browsers_may_send_the_header(api: Api, settings: Any) -> None:
    origin = "https://console.example"
    changed = settings.model_copy(update={"cors_origins": [origin]})
    async with serving(changed) as other:
        response = await other.http.options(
            "/graphql",
            headers={
                "origin": origin,
                "access-control-request-method": "POST",
                "access-control-request-headers": "idempotency-key",
            },
        )
    assert response.status_code == 200
    assert "idempotency-key" in response.headers["access-control-allow-headers"].lower()


async def test_directive_is_in_the_introspection(api: Api) -> None:
    data = await api("{ __schema { directives { name locations args { name type { kind } } } } }")
    (directive,) = [d for d in data["__schema"]["directives"] if d["name"] == "idempotent"]
    assert directive["locations"] == ["FIELD"]
    assert directive["args"] == [{"name": "key", "type": {"kind": "NON_NULL"}}]
