"""The coercion of variables by a function that is compiled once per operation.

It does what graphql-core's `get_variable_values` does for valid values. graphql-core looks up the
types of all variables in each request, which takes longer than the coercion.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from graphql.execution.get_variable_signature import (
    GraphQLVariableSignature,
    get_variable_signature,
)
from graphql.execution.values import VariableValues, VariableValueSource, get_variable_values

from graphql import (
    GraphQLLeafType,
    GraphQLNonNull,
    GraphQLSchema,
    Undefined,
    VariableDefinitionNode,
    is_leaf_type,
)

CoerceVariables: TypeAlias = Callable[[Mapping[str, Any]], VariableValues | None]
"""A function that returns the coerced variables, or None if a variable is not valid."""

_Leaf: TypeAlias = tuple[GraphQLVariableSignature, GraphQLLeafType]


def compile_variables(
    schema: GraphQLSchema, definitions: Sequence[VariableDefinitionNode]
) -> CoerceVariables:
    """Compile the coercion of the variables of an operation of a validated document."""

    def coerce_by_core(variables: Mapping[str, Any]) -> VariableValues | None:
        coerced = get_variable_values(schema, definitions, dict(variables))
        return None if isinstance(coerced, list) else coerced

    if not definitions:
        return lambda variables: VariableValues({}, {})
    leaves: list[_Leaf] = []
    for definition in definitions:
        signature = get_variable_signature(schema, definition)
        if not isinstance(signature, GraphQLVariableSignature):
            return coerce_by_core
        kind = signature.type
        if isinstance(kind, GraphQLNonNull):
            kind = kind.of_type
        if not is_leaf_type(kind):
            return coerce_by_core
        leaves.append((signature, kind))

    def coerce_leaves(variables: Mapping[str, Any]) -> VariableValues | None:
        sources: dict[str, VariableValueSource] = {}
        coerced: dict[str, Any] = {}
        for signature, kind in leaves:
            name = signature.name
            value = variables.get(name)
            if value is None:  # null, a default value, or an error
                return coerce_by_core(variables)
            try:
                result = kind.coerce_input_value(value)
            except Exception:  # noqa: BLE001 - graphql-core accepts every exception as an error
                return None
            if result is Undefined:
                return None
            sources[name] = VariableValueSource(signature, value)
            coerced[name] = result
        return VariableValues(sources, coerced)

    return coerce_leaves
