"""The HTTP view accepts GraphQL requests and rejects malformed ones with a message."""

from typing import Any

import httpx
import orjson

from tests.back_dating import all_rows
from tests.conftest import Api, Sql, without_cost
from tests.operations import create_user

JSON = "application/json"
MIB = 1024 * 1024
GRAPHQL_JSON = "application/graphql-response+json"
TYPENAME = {"query": "{ __typename }"}
CREATE = "mutation { createUser(input: {id: 7}) { user { id } } }"

MALFORMED_BODIES = (
    b"null",
    b"5",
    b"true",
    b"[]",
    b'[{"query": "{ __typename }"}]',
    b'"x"',
    b"{}",
    b'{"query": null}',
    b'{"query": 5}',
    b'{"query": ""}',
    b'{"query": ["{ __typename }"]}',
    b'{"query": "{ __typename }", "variables": []}',
    b'{"query": "{ __typename }", "variables": "{}"}',
    b'{"query": "{ __typename }", "variables": 5}',
    b'{"query": "{ __typename }", "operationName": 5}',
    b'{"query": "{ __typename }", "extensions": []}',
    b"",
    b"{",
    b'{"query": "{ __typename }"',
    b'{"query": "{ __typename }",}',
    b"{'query': '{ __typename }'}",
    b"query={ __typename }",
    b'{"query": "{ __typename } # \xff"}',  # broken UTF-8
    b'{"query": "{ __typename } # \xc3"}',
    b'\xff\xfe{\x00"\x00',  # UTF-16
    b'{"query": "{ __typename }", "variables": {"a": NaN}}',
    b"[" * 100_000,
    b'{"a":' * 50_000,
)

INVALID_DOCUMENTS = (
    "{",
    "not graphql",
    "{ nope }",
    "{ users }",
    "{ user { id } }",
    "query A { __typename } query A { __typename }",
    "{ __typename } query B { __typename }",
    "query($id: ID) { user(id: $id) { id } }",
    "query($id: Nope) { __typename }",
    "fragment F on Query { __typename }",
    "subscription { __typename }",
    "\0",
    "\ufeff{ nope }",
)


async def post(api: Api, content: bytes, **headers: str) -> httpx.Response:
    with_database = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.http.post(
        "/graphql", content=content, headers={"content-type": JSON, **with_database}
    )


def only_error(response: httpx.Response) -> Any:
    body = response.json()
    assert list(body) == ["errors"]
    (error,) = body["errors"]
    return error


async def test_malformed_body_is_a_bad_request(api: Api) -> None:
    for body in MALFORMED_BODIES:
        response = await post(api, body)
        assert response.status_code == 400, body[:50]
        assert response.headers["content-type"] == "application/json; charset=utf-8"
        error = only_error(response)
        assert error["extensions"] == {"code": "BAD_REQUEST"}
        assert len(error["message"]) < 200


async def test_every_field_except_the_query_may_be_absent_or_null(api: Api) -> None:
    for fields in (
        {},
        {"variables": None, "operationName": None},
    ):
        response = await api.http.post("/graphql", json={**TYPENAME, **fields})
        assert response.status_code == 200
        assert without_cost(response.json()) == {"data": {"__typename": "Query"}}


async def test_body_of_ten_megabytes_exceeds_the_limit(api: Api) -> None:
    body = orjson.dumps({"query": "{ __typename } #" + "x" * 10_000_000})
    response = await post(api, body)
    assert response.status_code == 413
    assert only_error(response)["extensions"] == {
        "code": "LIMIT_EXCEEDED",
        "limit": 4 * MIB,
        "value": len(body),
    }


async def test_large_chunked_body_is_not_read_to_its_end(api: Api) -> None:
    chunks_read = 0

    async def body_chunks() -> Any:
        nonlocal chunks_read
        for _ in range(100):
            chunks_read += 1
            yield b" " * 200_000

    response = await api.http.post(
        "/graphql", content=body_chunks(), headers={"content-type": JSON}
    )
    assert response.status_code == 413
    assert only_error(response)["extensions"]["code"] == "LIMIT_EXCEEDED"
    assert chunks_read == 21


async def test_body_at_the_limit_is_accepted(api: Api) -> None:
    body = orjson.dumps({"query": "{ __typename } #"})
    response = await post(api, body + b" " * (4 * MIB - len(body)))
    assert without_cost(response.json()) == {"data": {"__typename": "Query"}}


async def test_invalid_document_is_a_bad_request_without_data(api: Api) -> None:
    for query in INVALID_DOCUMENTS:
        body = await api.body(query)
        assert "data" not in body, query
        assert {error["extensions"]["code"] for error in body["errors"]} == {"BAD_REQUEST"}


async def test_document_that_skips_every_field_returns_empty_data(api: Api) -> None:
    for query in ("{ }", "query Nothing { }"):
        assert await api.body(query) == {"data": {}}


async def test_too_deeply_nested_document_is_a_bad_request(api: Api) -> None:
    for depth in (
        1_000,
        50_000,
    ):
        for opening, inside, closing in (
            ("{ a ", "", "}"),
            ("[", "", "]"),
            ("{a: ", "1", "}"),
        ):
            nested = opening * depth + inside + closing * depth
            query = nested if opening == "{ a " else f"{{ user(id: {nested}) {{ id }} }}"
            error = await api.error(query)
            assert error["extensions"]["code"] == "BAD_REQUEST"


async def test_too_deeply_nested_variables_are_a_bad_request(api: Api) -> None:
    for depth in (500, 1_000):
        value = b"[" * depth + b"]" * depth
        body = (
            b'{"query": "query($id: ID!) { user(id: $id) { id } }", "variables": {"id": %b}}'
            % value
        )
        assert only_error(await post(api, body))["extensions"]["code"] == "BAD_REQUEST"


async def test_operation_name_selects_the_operation(api: Api) -> None:
    query = "query A { a: __typename } query B { b: __typename }"
    result = await api.http.post("/graphql", json={"query": query, "operationName": "B"})
    assert without_cost(result.json()) == {"data": {"b": "Query"}}
    for name in ("C", None):
        response = await api.http.post("/graphql", json={"query": query, "operationName": name})
        assert only_error(response)["extensions"]["code"] == "BAD_REQUEST"


async def test_empty_operation_name_counts_as_absent(api: Api) -> None:
    body = {**TYPENAME, "operationName": ""}
    for response in (
        await api.http.post("/graphql", json=body),
        await api.http.get("/graphql", params=body),
    ):
        assert without_cost(response.json()) == {"data": {"__typename": "Query"}}
    for wrong in (b"0", b"false", b"[]", b"{}"):
        response = await post(api, b'{"query": "{ __typename }", "operationName": %b}' % wrong)
        assert response.status_code == 400


async def test_invalid_variables_are_named_without_internal_details(api: Api) -> None:
    query = "query($first: Int!) { users(first: $first) { nodes { id } } }"
    for variables in ({}, {"first": "1"}, {"first": 1.5}, {"first": 2**31}, {"first": None}):
        error = await api.error(query, **variables)
        assert error["extensions"]["code"] == "BAD_REQUEST"
    assert (await api.error(query, first="1"))["extensions"]["argument"] == "first"


async def test_get_executes_a_query(api: Api) -> None:
    await create_user(api, id="7")
    response = await api.http.get(
        "/graphql",
        params={
            "query": "query A { a: __typename } query B($id: ID!) { user(id: $id) { id } }",
            "operationName": "B",
            "variables": '{"id": "7"}',
        },
    )
    assert response.status_code == 200
    assert without_cost(response.json()) == {"data": {"user": {"id": "7"}}}


async def test_get_rejects_a_mutation(api: Api, sql: Sql) -> None:
    before = await all_rows(sql)
    for accept in (JSON, GRAPHQL_JSON):
        response = await api.http.get(
            "/graphql", params={"query": CREATE}, headers={"accept": accept}
        )
        assert response.status_code == 405
        assert response.headers["allow"] == "POST"
        assert only_error(response)["extensions"] == {"code": "BAD_REQUEST"}
    assert await all_rows(sql) == before


async def test_get_rejects_a_mutation_selected_beside_a_query(api: Api, sql: Sql) -> None:
    query = "query A { __typename } mutation B { createUser(input: {id: 7}) { user { id } } }"
    parameters = {"query": query, "operationName": "B"}
    assert (await api.http.get("/graphql", params=parameters)).status_code == 405
    assert await sql.fetchval("SELECT count(*) FROM users") == 0
    result = await api.http.get("/graphql", params={**parameters, "operationName": "A"})
    assert without_cost(result.json()) == {"data": {"__typename": "Query"}}


async def test_malformed_get_is_a_bad_request(api: Api) -> None:
    for parameters in (
        {},
        {"query": ""},
        {"query": "{ __typename }", "variables": "{"},
        {"query": "{ __typename }", "variables": "[]"},
        {"query": "{ __typename }", "variables": "5"},
        {"query": "{ __typename }", "extensions": "x"},
    ):
        response = await api.http.get("/graphql", params=parameters)
        assert response.status_code == 400
        assert only_error(response)["extensions"] == {"code": "BAD_REQUEST"}
