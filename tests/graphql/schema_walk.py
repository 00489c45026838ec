"""A walk through every field that queries reach, so that tests cover new arguments."""

from collections.abc import Iterator, Sequence
from typing import Final

from graphql import GraphQLField, GraphQLNonNull, GraphQLObjectType, get_named_type
from tests.graphql.executor_helpers import CORE

REQUIRED: Final = {
    "id": '"1"',
    "ids": '["1"]',
    "userId": '"1"',
    "key": '"one"',
    "keys": '["one"]',
    "slug": '"A"',
    "Query.report.id": '"rep_1"',
    "Query.export.id": '"exp_1"',
    "Query.import.id": '"imp_1"',
    "Query.node.id": '"seg_1"',
    "year": "2024",
    "month": "2",
    "from": '"2024-01-01T00:00:00Z"',
    "to": '"2024-06-01T00:00:00Z"',
}
"""Values of required arguments and input fields, by their path or by their name."""


def required_value(place: str, name: str) -> str:
    """Return a value as a GraphQL literal."""
    return REQUIRED.get(f"{place}.{name}") or REQUIRED[name]


def required_arguments(place: str, field: GraphQLField) -> list[str]:
    """Return a field's required arguments with values."""
    return [
        f"{name}: {required_value(place, name)}"
        for name, argument in field.args.items()
        if isinstance(argument.type, GraphQLNonNull)
    ]


def object_type_paths() -> Iterator[tuple[GraphQLObjectType, list[str]]]:
    """Yield every object type that queries reach, with the fields that lead to it."""
    assert CORE.query_type
    paths: dict[str, list[str]] = {CORE.query_type.name: []}
    queue = [CORE.query_type]
    for parent in queue:
        path = paths[parent.name]
        yield parent, path
        for name, field in parent.fields.items():
            named_type = get_named_type(field.type)
            if isinstance(named_type, GraphQLObjectType) and named_type.name not in paths:
                step = with_arguments(name, required_arguments(f"{parent.name}.{name}", field))
                paths[named_type.name] = [*path, step]
                queue.append(named_type)


def with_arguments(name: str, arguments: Sequence[str]) -> str:
    return f"{name}({', '.join(arguments)})" if arguments else name


def nested_selection(fields: Sequence[str], selected: str) -> str:
    """Nest each field in the one before it, with `selected` in the last one."""
    for field in reversed(fields):
        selected = f"{field} {{ {selected} }}"
    return selected
