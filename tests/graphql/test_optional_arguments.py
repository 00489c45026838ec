"""Null and absent optional arguments mean no filter, and an empty string is rejected.

The arguments are read from the schema, so that a new one is tested as well.
"""

from dataclasses import dataclass
from typing import Any, Final

import pytest

from graphql import GraphQLInputObjectType, GraphQLNonNull, get_named_type
from tests.back_dating import all_rows
from tests.conftest import Api, Sql
from tests.graphql.executor_helpers import CORE
from tests.graphql.schema_walk import (
    REQUIRED,
    nested_selection,
    object_type_paths,
    required_arguments,
    required_value,
    with_arguments,
)
from tests.sample_data import SAMPLE_DATA

NO_FILTER_WHERE_EMPTY: Final = {"prefix", "search"}
"""Every slug has the empty prefix, and every text contains the empty text."""


@dataclass(frozen=True)
class Argument:
    """An optional argument of a query's field."""

    place: str
    """The type, the field and the argument."""
    path: list[str]
    """The fields that lead to the field."""
    required_arguments: list[str]
    """The field's required arguments."""
    kind: str

    def __str__(self) -> str:
        return self.place

    @property
    def name(self) -> str:
        return self.place.split(".")[-1]

    def query(self, value: str | None, *, declared: bool = False) -> str:
        """Return a query with this argument, or without it."""
        required_arguments = (
            self.required_arguments
            if value is None
            else [*self.required_arguments, f"{self.name}: {value}"]
        )
        name = self.place.split(".")[1]
        selected = "events { at }" if name == "changes" else "nodes { id }"
        field = nested_selection([*self.path, with_arguments(name, required_arguments)], selected)
        return f"query($value: {self.kind}) {{ {field} }}" if declared else f"{{ {field} }}"


def optional_text_arguments() -> list[Argument]:
    """Return each optional argument of type String or ID that is a filter or a cursor of a list.

    Of `userId` and `userKey` exactly one is required.
    """
    return [
        Argument(
            place=f"{parent.name}.{name}.{argument}",
            path=path,
            required_arguments=required_arguments(f"{parent.name}.{name}", field),
            kind=str(definition.type),
        )
        for parent, path in object_type_paths()
        for name, field in parent.fields.items()
        for argument, definition in field.args.items()
        if str(definition.type) in {"String", "ID"} and "userKey" not in field.args
    ]


@pytest.fixture(autouse=True)
async def stored(sql: Sql) -> None:
    await sql.execute(SAMPLE_DATA)


def test_known_optional_arguments_are_found() -> None:
    assert {argument.place for argument in optional_text_arguments()} >= {
        "Query.users.after",
        "Query.segments.prefix",
        "Query.history.userId",
        "Query.history.slug",
        "Query.reports.userId",
        "User.history.slug",
        "Segment.members.after",
    }


@pytest.mark.parametrize("argument", optional_text_arguments(), ids=str)
async def test_null_is_no_filter_and_an_empty_string_is_rejected(
    api: Api, argument: Argument
) -> None:
    absent = await api(argument.query(None))
    by_variable = argument.query("$value", declared=True)
    assert await api(argument.query("null")) == absent
    assert await api(by_variable, value=None) == absent
    assert await api(by_variable) == absent
    if argument.name in NO_FILTER_WHERE_EMPTY:
        assert await api(argument.query('""')) == absent
        assert await api(by_variable, value="") == absent
        return
    for error in (await api.error(argument.query('""')), await api.error(by_variable, value="")):
        assert error["extensions"]["code"] == "BAD_REQUEST"
        assert error["extensions"]["argument"] == argument.name
        assert error["extensions"]["allowed"]


def optional_id_fields() -> list[Any]:
    """Return each optional ID field of a mutation's input, with its required fields."""
    assert CORE.mutation_type
    names: list[Any] = []
    for name, mutation in CORE.mutation_type.fields.items():
        kind = get_named_type(mutation.args["input"].type)
        assert isinstance(kind, GraphQLInputObjectType)
        required = [
            f"{field}: {required_value(name, field)}"
            for field, definition in kind.fields.items()
            if isinstance(definition.type, GraphQLNonNull) and field in REQUIRED
        ]
        names.extend(
            pytest.param(name, required, field, id=f"{name}.{field}")
            for field, definition in kind.fields.items()
            if str(definition.type) == "ID"
        )
    return names


@pytest.mark.parametrize(("name", "required", "field"), optional_id_fields())
async def test_empty_id_in_an_input_is_rejected(
    api: Api, sql: Sql, name: str, required: list[str], field: str
) -> None:
    before = await all_rows(sql)
    required_arguments = ", ".join([*required, f'{field}: ""'])
    errors = "errors { code path ... on InvalidInput { allowed } }"
    data = await api(f"mutation {{ {name}(input: {{{required_arguments}}}) {{ {errors} }} }}")
    (error,) = data[name]["errors"]
    assert (error["code"], error["path"]) == ("INVALID_INPUT", [field])
    assert error["allowed"]
    assert await all_rows(sql) == before
