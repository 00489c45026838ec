"""Names, numbers and messages have a bounded length in every place that a client can write to."""

from typing import Any

import orjson
import pytest

from segmentql.graphql.cost.document_limits import (
    MAX_NAME_CHARACTERS,
    MAX_NUMBER_CHARACTERS,
    MAX_QUERY_CHARACTERS,
)
from segmentql.graphql.types.error_texts import MAX_MESSAGE_CHARACTERS
from tests.back_dating import all_rows
from tests.conftest import Api, Sql
from tests.graphql.test_http import post

PYTHON_MESSAGE = "integer string conversion"


def with_name(name: str) -> dict[str, str]:
    """Return a document for each kind of name.

    It is valid with a short name, except for fields and arguments.
    """
    return {
        "alias": f"{{ {name}: __typename }}",
        "operation": f"query {name} {{ __typename }}",
        "fragment": f"{{ ...{name} }} fragment {name} on Query {{ __typename }}",
        "variable": f"query(${name}: ID = 1) {{ user(id: ${name}) {{ id }} }}",
        "field": f"{{ {name} }}",
        "argument": f"{{ user(id: 1, {name}: 1) {{ id }} }}",
        "input field": f"mutation {{ createUser(input: {{{name}: 1}}) {{ errors {{ code }} }} }}",
        "enum value": f"{{ user(id: {name}) {{ id }} }}",
        "directive": f"{{ __typename @{name} }}",
        "type": f"{{ ... on {name} {{ __typename }} }}",
    }


@pytest.mark.parametrize("kind", with_name("a"))
async def test_names_of_more_than_255_characters_are_rejected(api: Api, kind: str) -> None:
    at_limit = await api.body(with_name("a" * MAX_NAME_CHARACTERS)[kind])
    if kind in {"alias", "operation", "fragment", "variable"}:
        assert "errors" not in at_limit
    else:
        assert at_limit["errors"][0]["extensions"]["code"] == "BAD_REQUEST"
    error = await api.error(with_name("a" * (MAX_NAME_CHARACTERS + 1))[kind])
    assert error["extensions"] == {
        "code": "LIMIT_EXCEEDED",
        "argument": "name characters",
        "limit": MAX_NAME_CHARACTERS,
        "value": MAX_NAME_CHARACTERS + 1,
    }


def with_number(number: str) -> dict[str, str]:
    """Return a document for each type that reads a number."""
    return {
        "Int": f"{{ users(first: {number}) {{ nodes {{ id }} }} }}",
        "Int default": f"query($n: Int = {number}) {{ users(first: $n) {{ nodes {{ id }} }} }}",
        "ID": f"{{ user(id: {number}) {{ id }} }}",
        "ID in a list": f"{{ usersById(ids: [1, {number}]) {{ id }} }}",
        "Float": 'mutation { createSegment(input: {slug: "A", rollout: {percent: '
        + number
        + "}}) { errors { code } } }",
        "DateTime": f"{{ history(from: {number}) {{ nodes {{ id }} }} }}",
        "String": f"{{ segment(slug: {number}) {{ id }} }}",
        "Boolean": f"{{ __typename @include(if: {number}) }}",
    }


@pytest.mark.parametrize("kind", with_number("1"))
async def test_numbers_of_5000_digits_are_rejected_with_a_short_echo(
    api: Api, sql: Sql, kind: str
) -> None:
    before = await all_rows(sql)
    for number in ("9" * 5000, "-" + "9" * 4999, "0." + "1" * 4998, "1e" + "9" * 4998):
        error = await api.error(with_number(number)[kind])
        assert error["message"] == (
            f"The number {number[:40]}... (5000 characters) is too long."
            f" A number can have at most {MAX_NUMBER_CHARACTERS} characters."
        )
        assert error["extensions"] == {
            "code": "LIMIT_EXCEEDED",
            "argument": "number characters",
            "limit": MAX_NUMBER_CHARACTERS,
            "value": 5000,
        }
    for number in ("9" * MAX_NUMBER_CHARACTERS, "1e999", "-1e999"):
        body = await api.body(with_number(number)[kind])
        assert {e["extensions"]["code"] for e in body.get("errors", ())} <= {"BAD_REQUEST"}
        assert "errors" in body or kind == "Float"  # in this case, the payload has the error
        assert PYTHON_MESSAGE not in str(body)
    assert await all_rows(sql) == before


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000, "1e999", "1" * 400 + ".5"])
async def test_too_long_numbers_in_variables_are_bad_requests(api: Api, number: str) -> None:
    query = "query($n: Int) { users(first: $n) { nodes { id } } }"
    body = f'{{"query": {orjson.dumps(query).decode()}, "variables": {{"n": {number}}}}}'
    response = await post(api, body.encode())
    (error,) = response.json()["errors"]
    assert error["extensions"]["code"] == "BAD_REQUEST"
    assert PYTHON_MESSAGE not in error["message"]
    assert len(error["message"]) < 300


LONG = "x" * 100_000
ECHOES: dict[str, tuple[str, dict[str, Any]]] = {
    "a string": (f'{{ users(first: "{LONG}") {{ nodes {{ id }} }} }}', {}),
    "a block string": (f'{{ users(first: """{LONG}""") {{ nodes {{ id }} }} }}', {}),
    "a string out of place": (f'{{ users "{LONG}" }}', {}),
    "a string in place of a condition": (f'{{ __typename @include(if: "{LONG}") }}', {}),
    "a variable": ("query($n: Int) { users(first: $n) { nodes { id } } }", {"n": LONG}),
    "an input field": (
        "mutation($input: CreateUserInput!) { createUser(input: $input) { errors { code } } }",
        {"input": {LONG: 1}},
    ),
    "an enum value": (
        "mutation($input: UpdateUserSegmentsInput!)"
        " { updateUserSegments(input: $input) { errors { code } } }",
        {"input": {"userId": "1", "onExisting": LONG}},
    ),
    "an id": ("query($id: ID!) { user(id: $id) { id } }", {"id": LONG}),
    "a slug": ("query($slug: String!) { history(slug: $slug) { nodes { id } } }", {"slug": LONG}),
    "a time": ("query($from: DateTime) { history(from: $from) { nodes { id } } }", {"from": LONG}),
    "a cursor": (
        "query($after: String) { users(after: $after) { nodes { id } } }",
        {"after": LONG},
    ),
}


@pytest.mark.parametrize("case", ECHOES)
async def test_errors_repeat_no_more_than_the_beginning_of_long_values(api: Api, case: str) -> None:
    query, variables = ECHOES[case]
    response = await api.http.post("/graphql", json={"query": query, "variables": variables})
    for error in response.json()["errors"]:
        assert error["extensions"]["code"] == "BAD_REQUEST"
        assert len(error["message"]) <= MAX_MESSAGE_CHARACTERS + 100
    assert len(response.content) < 5_000


async def test_long_operation_name_is_not_repeated_in_full(api: Api) -> None:
    response = await api.http.post(
        "/graphql", json={"query": "query A { __typename }", "operationName": LONG}
    )
    (error,) = response.json()["errors"]
    assert error["extensions"]["code"] == "BAD_REQUEST"
    assert len(response.content) < 2_000


async def test_too_long_document_is_rejected_before_parsing(api: Api) -> None:
    def document(characters: int) -> str:
        return "{ __typename } #" + "x" * (characters - 16)

    assert await api(document(MAX_QUERY_CHARACTERS)) == {"__typename": "Query"}
    error = await api.error(document(MAX_QUERY_CHARACTERS + 1))
    assert error["extensions"] == {
        "code": "LIMIT_EXCEEDED",
        "argument": "query characters",
        "limit": MAX_QUERY_CHARACTERS,
        "value": MAX_QUERY_CHARACTERS + 1,
    }
