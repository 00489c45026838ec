"""Finds every field that a query reaches, so that a test covers arguments yet to come."""

from collections.abc import Iterator, Sequence
from typing import Final

from graphql import GraphQLField, GraphQLNonNull, GraphQLObjectType, get_named_type
from tests.graphql.executor_helpers import CORE

REQUIRED: Final = {
    "id": '"1"',
    "ids": '["1"]',
    "slug": '"A"',
    "Query.report.id": '"rep_1"',
    "year": "2024",
    "month": "2",
}
"""What is given for a required argument or input field: by its place, or else by its name."""


def required_value(place: str, name: str) -> str:
    """A value, as a literal of GraphQL."""
    return REQUIRED.get(f"{place}.{name}") or REQUIRED[name]


def required_arguments(place: str, field: GraphQLField) -> list[str]:
    """The required arguments of a field, with values."""
    return [
        f"{name}: {required_value(place, name)}"
        for name, argument in field.args.items()
        if isinstance(argument.type, GraphQLNonNull)
    ]


def object_type_paths() -> Iterator[tuple[GraphQLObjectType, list[str]]]:
    """Every object type that a query reaches, with the fields that lead to it."""
    assert CORE.query_type
    found: dict[str, list[str]] = {CORE.query_type.name: []}
    waiting = [CORE.query_type]
    for parent in waiting:
        way = found[parent.name]
        yield parent, way
        for name, field in parent.fields.items():
            below = get_named_type(field.type)
            if isinstance(below, GraphQLObjectType) and below.name not in found:
                step = with_arguments(name, required_arguments(f"{parent.name}.{name}", field))
                found[below.name] = [*way, step]
                waiting.append(below)


def with_arguments(name: str, arguments: Sequence[str]) -> str:
    return f"{name}({', '.join(arguments)})" if arguments else name


def nested_selection(fields: Sequence[str], selected: str) -> str:
    """The first field with the second below it, and so on; `selected` is below the last one."""
    for field in reversed(fields):
        selected = f"{field} {{ {selected} }}"
    return selected
