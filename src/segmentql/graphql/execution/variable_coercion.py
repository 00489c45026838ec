"""The coercion of variables by a function that is compiled once per operation.

It does what graphql-core's `get_variable_values` does for valid values. graphql-core looks up the
types of all variables in each request, which takes longer than the coercion.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from graphql.execution.get_variable_signature import (
    GraphQLVariableSignature,
    get_variable_signature,
)
from graphql.execution.values import VariableValues, VariableValueSource, get_variable_values

from graphql import (
    GraphQLLeafType,
    GraphQLList,
    GraphQLSchema,
    Undefined,
    VariableDefinitionNode,
    get_nullable_type,
    is_leaf_type,
)

CoerceVariables: TypeAlias = Callable[[Mapping[str, Any]], VariableValues | None]
"""A function that returns the coerced variables, or None if a variable is not valid."""


class _Variable(NamedTuple):
    """A variable whose value is a leaf or a list of leaves."""

    signature: GraphQLVariableSignature
    kind: GraphQLLeafType
    """The type of the value, or of the items of the list."""
    is_list: bool


def compile_variables(
    schema: GraphQLSchema, definitions: Sequence[VariableDefinitionNode]
) -> CoerceVariables:
    """Compile the coercion of the variables of an operation of a validated document."""

    def coerce_by_core(variables: Mapping[str, Any]) -> VariableValues | None:
        coerced = get_variable_values(schema, definitions, dict(variables))
        return None if isinstance(coerced, list) else coerced

    if not definitions:
        return lambda variables: VariableValues({}, {})
    compiled: list[_Variable] = []
    for definition in definitions:
        signature = get_variable_signature(schema, definition)
        if not isinstance(signature, GraphQLVariableSignature):
            return coerce_by_core
        kind = get_nullable_type(signature.type)
        is_list = isinstance(kind, GraphQLList)
        if isinstance(kind, GraphQLList):
            kind = get_nullable_type(kind.of_type)
        if not is_leaf_type(kind):
            return coerce_by_core
        compiled.append(_Variable(signature, kind, is_list))

    def coerce(variables: Mapping[str, Any]) -> VariableValues | None:
        sources: dict[str, VariableValueSource] = {}
        coerced: dict[str, Any] = {}
        for signature, kind, is_list in compiled:
            name = signature.name
            value = variables.get(name)
            if value is None:  # null, a default value, or an error
                return coerce_by_core(variables)
            if is_list and (type(value) is not list or None in value):
                return coerce_by_core(variables)
            try:
                result = _coerce_items(kind, value) if is_list else kind.coerce_input_value(value)
            except Exception:  # noqa: BLE001 - graphql-core accepts every exception as an error
                return None
            if result is Undefined:
                return None
            sources[name] = VariableValueSource(signature, value)
            coerced[name] = result
        return VariableValues(sources, coerced)

    return coerce


def _coerce_items(kind: GraphQLLeafType, values: Sequence[Any]) -> Any:
    """Return the coerced items of a list, or Undefined if an item is not valid."""
    coerce = kind.coerce_input_value
    items = []
    for value in values:
        item = coerce(value)
        if item is Undefined:
            return Undefined
        items.append(item)
    return items
