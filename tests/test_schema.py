"""`schema.graphql` is what the code serves, and every part of it is explained."""

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


def test_the_printed_schema_is_the_codes_own() -> None:
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
                    if argument_name != "input":
                        yield f"{name}.{field_name}({argument_name}:)", argument.description
        elif isinstance(kind, GraphQLInputObjectType):
            for input_name, input_field in kind.fields.items():
                yield f"{name}.{input_name}", input_field.description
        elif isinstance(kind, GraphQLEnumType):
            for value_name, value in kind.values.items():
                yield f"{name}.{value_name}", value.description


def test_every_type_field_argument_and_value_is_described() -> None:
    assert [where for where, description in _described() if not description] == []


def test_top_level_fields_and_payloads_are_nullable() -> None:
    """So that one fault does not void its neighbours, nor hide what they committed."""
    schema = build_schema(PRINTED.read_text())
    assert schema.query_type
    assert schema.mutation_type
    roots = {**schema.query_type.fields, **schema.mutation_type.fields}
    assert [name for name, field in roots.items() if isinstance(field.type, GraphQLNonNull)] == []


def test_every_payload_tells_its_errors() -> None:
    schema = build_schema(PRINTED.read_text())
    assert schema.mutation_type
    for field in schema.mutation_type.fields.values():
        payload = field.type
        assert isinstance(payload, GraphQLObjectType)
        assert str(payload.fields["errors"].type) == "[MutationError!]!"
