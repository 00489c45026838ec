"""Compiled arguments equal those that Strawberry builds of the same values."""

from typing import Any, Final

import pytest
from graphql.execution.values import VariableValues, get_variable_values
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from strawberry.types.arguments import convert_arguments

from graphql import (
    FieldNode,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    OperationDefinitionNode,
    get_argument_values,
    parse,
)
from segmentql.graphql.execution.input_coercion import DEFINITION, arguments_of
from tests.graphql.executor_helpers import CORE, SCHEMA

MUTATIONS: Final = CORE.mutation_type.fields  # type: ignore[union-attr]
SCALAR_VALUES: Final[dict[str, st.SearchStrategy[Any]]] = {
    "ID": st.one_of(st.integers(-5, 5), st.text(max_size=3)),
    "String": st.text(max_size=3),
    "Int": st.integers(-5, 5),
    "BigInt": st.integers(-5, 2**53),
    "Float": st.floats(-5, 5),
    "Boolean": st.booleans(),
    "DateTime": st.sampled_from(["2024-01-01T00:00:00Z", "2024-01-01T00:00:00.5+02:00"]),
}


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Draw JSON values that graphql-core accepts for a type."""
    if isinstance(kind, GraphQLNonNull):
        return not_null(kind.of_type)
    return st.none() | not_null(kind)


def not_null(kind: Any) -> st.SearchStrategy[Any]:
    if isinstance(kind, GraphQLList):
        return st.lists(values_of(kind.of_type), max_size=3)
    if isinstance(kind, GraphQLEnumType):
        return st.sampled_from(list(kind.values))
    if isinstance(kind, GraphQLInputObjectType) and kind.extensions[DEFINITION].is_one_of:
        return st.one_of(
            [
                st.fixed_dictionaries({name: not_null(field.type)})
                for name, field in kind.fields.items()
            ]
        )
    if isinstance(kind, GraphQLInputObjectType):
        needed = {
            name: values_of(field.type)
            for name, field in kind.fields.items()
            if isinstance(field.type, GraphQLNonNull)
        }
        others = {
            name: values_of(field.type) for name, field in kind.fields.items() if name not in needed
        }
        return st.fixed_dictionaries(needed, optional=others)
    return SCALAR_VALUES[kind.name]


def operations(
    name: str, variables: dict[str, Any]
) -> tuple[GraphQLField, FieldNode, VariableValues]:
    field = MUTATIONS[name]
    document = parse(
        f"mutation($input: {field.args['input'].type}) {{ {name}(input: $input) {{ __typename }} }}"
    )
    operation = document.definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    coerced = get_variable_values(CORE, operation.variable_definitions or (), variables)
    assert isinstance(coerced, VariableValues), coerced
    node = operation.selection_set.selections[0]
    assert isinstance(node, FieldNode)
    return field, node, coerced


@pytest.mark.parametrize("name", MUTATIONS)
@profile(max_examples=50, deadline=None, derandomize=True)
@given(data=st.data())
def test_compiled_arguments_equal_those_of_strawberry(name: str, data: st.DataObject) -> None:
    values = data.draw(values_of(MUTATIONS[name].args["input"].type))
    field, node, variables = operations(name, {"input": values})
    converted = convert_arguments(
        get_argument_values(field, node, variables),
        field.extensions[DEFINITION].arguments,
        SCHEMA.schema_converter.scalar_registry,
        SCHEMA.config,
    )
    assert arguments_of(field, node)(variables) == converted


def test_requests_do_not_share_inputs_or_defaults() -> None:
    operation = parse("mutation { updateUserSegments(input: {userId: 1}) { __typename } }")
    node = operation.definitions[0].selection_set.selections[0]  # type: ignore[attr-defined]
    parsed = arguments_of(MUTATIONS["updateUserSegments"], node)
    _, _, no_variables = operations("updateUserSegments", {"input": {"userId": 1}})
    first, second = (parsed(no_variables)["input"] for _ in range(2))
    first.user_id = "2"
    first.add.append("A")
    assert (second.user_id, second.add) == ("1", [])
