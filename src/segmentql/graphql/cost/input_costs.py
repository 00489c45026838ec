"""Costs that depend on an argument's value: on its literal, or on a variable.

`query_cost.py` adds them to the costs of fields.
"""

from collections.abc import Callable

from graphql import (
    BooleanValueNode,
    FieldNode,
    ListValueNode,
    NullValueNode,
    ObjectValueNode,
    ValueNode,
    VariableNode,
)
from segmentql.graphql.cost.cost_expressions import CostExpression, Variables


def input_list_size(node: FieldNode, name: str) -> CostExpression:
    """Return the size of a list in the argument `input`."""
    value = _input_field(node, name)
    if isinstance(value, ListValueNode):
        return len(value.values)
    if callable(value):
        return lambda context: _optional_length(value(context.variables))
    return 0 if isinstance(value, NullValueNode | None) else 1


def input_boolean_cost(node: FieldNode, name: str, added: int) -> CostExpression:
    """Return the cost that a Boolean in the argument `input` adds."""
    value = _input_field(node, name)
    if callable(value):
        return lambda context: added if value(context.variables) else 0
    is_true = value.value if isinstance(value, BooleanValueNode) else value is not None
    return added if is_true and not isinstance(value, NullValueNode) else 0


def _input_field(node: FieldNode, name: str) -> ValueNode | Callable[[Variables], object] | None:
    """Return a field of the argument `input`: its literal, or a function that reads its variable.

    None: the client does not give it.
    """
    value = argument_value(node, "input")
    if isinstance(value, VariableNode):
        variable = value.name.value
        return lambda variables: _item(variables.get(variable), name)
    fields = value.fields if isinstance(value, ObjectValueNode) else ()
    field = next((field.value for field in fields if field.name.value == name), None)
    if isinstance(field, VariableNode):
        field_variable = field.name.value
        return lambda variables: variables.get(field_variable)
    return field


def _item(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _optional_length(value: object) -> int:
    return 0 if value is None else list_length(value)


def list_length(value: object) -> int:
    """Return the length of a list as the client sent it. Another value counts as one item."""
    return len(value) if isinstance(value, list) else 1


def argument_value(node: FieldNode, name: str) -> ValueNode | None:
    """Return the literal or the variable of an argument; None if the client does not give it."""
    return next((a.value for a in node.arguments or () if a.name.value == name), None)
