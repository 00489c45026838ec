"""`schema.graphql` is the schema of the code, and every part of it has a description."""

from collections.abc import Iterator
from pathlib import Path

from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNonNull,
    GraphQLObjectType,
    build_schema,
)
from segmentql.schema import make_schema

PRINTED = Path(__file__).parents[1] / "schema.graphql"


def test_printed_schema_matches_the_code() -> None:
    assert PRINTED.read_text() == make_schema().as_str() + "\n", "run `make schema`"


def _described() -> Iterator[tuple[str, str | None]]:
    for name, kind in build_schema(PRINTED.read_text()).type_map.items():
        if name.startswith("__") or name in {"String", "Int", "Float", "Boolean", "ID"}:
            continue
        yield name, kind.description
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            for field_name, field in kind.fields.items():
                yield f"{name}.{field_name}", field.description
                for argument_name, argument in field.args.items():
                    yield f"{name}.{field_name}({argument_name}:)", argument.description
        elif isinstance(kind, GraphQLInputObjectType):
            for input_name, input_field in kind.fields.items():
                yield f"{name}.{input_name}", input_field.description
        elif isinstance(kind, GraphQLEnumType):
            for value_name, value in kind.values.items():
                yield f"{name}.{value_name}", value.description


def test_every_schema_element_has_a_description() -> None:
    assert [name for name, description in _described() if not description] == []


def test_root_fields_and_payload_fields_are_nullable() -> None:
    """Then one fault nulls no sibling, and hides no result of a mutation."""
    schema = build_schema(PRINTED.read_text())
    assert schema.query_type
    assert schema.mutation_type
    roots = {**schema.query_type.fields, **schema.mutation_type.fields}
    assert [name for name, field in roots.items() if isinstance(field.type, GraphQLNonNull)] == []


def test_every_payload_has_errors() -> None:
    schema = build_schema(PRINTED.read_text())
    assert schema.mutation_type
    for field in schema.mutation_type.fields.values():
        payload = field.type
        assert isinstance(payload, GraphQLObjectType)
        assert str(payload.fields["errors"].type) == "[MutationError!]!"
