"""An integer is an id, but a JSON number with a fraction or an exponent is not.

A float cannot hold every id: 1234567890123456789.0 would become 1234567890123456768. Every argument
and input field of type ID is read from the schema, so that a new one is tested as well.
"""

from collections.abc import Iterator
from typing import Any, Final

import orjson
import pytest

from graphql import GraphQLInputObjectType, GraphQLNonNull, get_named_type
from segmentql.adapters.database import Database
from segmentql.graphql.execution.allowed_values import ALLOWED
from segmentql.settings import Settings
from tests.back_dating import all_rows
from tests.conftest import Api, Sql
from tests.graphql.executor_helpers import (
    COMPILING_EXECUTOR,
    CORE,
    PLAIN_EXECUTOR,
    execute,
    make_context,
)
from tests.graphql.schema_walk import (
    REQUIRED,
    nested_selection,
    object_type_paths,
    required_arguments,
    required_value,
    with_arguments,
)
from tests.sample_data import SAMPLE_DATA

INVALID_IDS: Final = (
    "1.0",
    "1e3",
    "1E0",
    "1234567890123456789.0",
    "-0.0",
    "1.5",
    "1e300",
    "18446744073709551616",  # an integer above every id, which orjson reads as a float
    "true",
    "false",
)
"""JSON spellings of each value."""


def id_arguments() -> Iterator[tuple[str, str, str]]:
    """Yield each argument of type ID or list of ID: name, query and JSON variables."""
    for parent, path in object_type_paths():
        for name, field in parent.fields.items():
            place = f"{parent.name}.{name}"
            for argument, definition in field.args.items():
                kind = get_named_type(definition.type)
                if kind.name != "ID":
                    continue
                others = [
                    one
                    for one in required_arguments(place, field)
                    if not one.startswith(f"{argument}:")
                ]
                fields = [*path, with_arguments(name, [*others, f"{argument}: $value"])]
                selection = nested_selection(fields, "__typename")
                query = f"query($value: {definition.type}) {{ {selection} }}"
                if "[" in str(definition.type):
                    yield f"{argument}.1", query, '{"value": [1, %s]}'
                else:
                    yield argument, query, '{"value": %s}'


def id_input_fields() -> Iterator[tuple[str, str, str]]:
    """Yield each ID field of a mutation's input, inside a variable and as a variable."""
    assert CORE.mutation_type
    for name, mutation in CORE.mutation_type.fields.items():
        kind = get_named_type(mutation.args["input"].type)
        assert isinstance(kind, GraphQLInputObjectType)
        for field, definition in kind.fields.items():
            if get_named_type(definition.type).name != "ID":
                continue
            value = "[1, %s]" if "[" in str(definition.type) else "%s"
            at = f".{field}.1" if "[" in str(definition.type) else f".{field}"
            others = {
                other: required_value(name, other)
                for other, required in kind.fields.items()
                if isinstance(required.type, GraphQLNonNull)
                and other in REQUIRED
                and other != field
            }
            json = ", ".join(f'"{other}": {literal}' for other, literal in others.items())
            document = f'{{"input": {{{json}{", " if json else ""}"{field}": {value}}}}}'
            yield (
                f"input{at}",
                f"mutation($input: {kind.name}!) {{ {name}(input: $input) {{ __typename }} }}",
                document,
            )
            literals = ", ".join(f"{other}: {literal}" for other, literal in others.items())
            yield (
                f"input{at}",
                f"mutation($value: {definition.type}) {{ {name}(input:"
                f" {{{literals} {field}: $value}}) {{ __typename }} }}",
                f'{{"value": {value}}}',
            )


CASES: Final = [*id_arguments(), *id_input_fields()]


@pytest.fixture(autouse=True)
async def stored(sql: Sql) -> None:
    await sql.execute(SAMPLE_DATA)


def test_id_arguments_and_input_fields_are_found() -> None:
    assert {argument for argument, _, _ in CASES} >= {
        "id",
        "ids.1",
        "userId",
        "input.id",
        "input.userId",
    }


@pytest.mark.parametrize(("argument", "query", "variables"), CASES, ids=[c[1] for c in CASES])
async def test_non_integer_number_is_rejected_as_an_id(
    api: Api, sql: Sql, argument: str, query: str, variables: str
) -> None:
    before = await all_rows(sql)
    for number in INVALID_IDS:
        text = f'{{"query": {orjson.dumps(query).decode()}, "variables": {variables % number}}}'
        response = await api.http.post(
            "/graphql", content=text, headers={"content-type": "application/json"}
        )
        body: Any = response.json()
        assert "data" not in body, number
        (error,) = body["errors"]
        assert error["extensions"] == {
            "code": "BAD_REQUEST",
            "argument": argument,
            "allowed": ALLOWED["ID"],
        }, number
    assert await all_rows(sql) == before


async def test_integer_is_accepted_as_an_id(api: Api) -> None:
    query = "query($id: ID!, $ids: [ID!]!) { user(id: $id) { id } usersById(ids: $ids) { id } }"
    data = await api(query, id=2, ids=[1, "2", 9223372036854775807])
    assert data == {"user": {"id": "2"}, "usersById": [{"id": "1"}, {"id": "2"}, None]}
    assert await api("query($id: ID = 3) { reports(userId: $id) { nodes { id } } }")


async def test_plans_reject_the_same_ids_as_graphql_core(
    database: Database, settings: Settings
) -> None:
    query = "query($ids: [ID!]!) { usersById(ids: $ids) { id } }"
    for number in (1.0, 1e3, 1234567890123456789.0, True):
        for engine in (COMPILING_EXECUTOR, PLAIN_EXECUTOR):
            response = await execute(
                engine, make_context(database, settings), query, ids=[1, number]
            )
            (error,) = response.body["errors"]
            assert error["extensions"]["argument"] == "ids.1"
            assert error["extensions"]["allowed"] == ALLOWED["ID"]
