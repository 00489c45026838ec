"""Finds the argument that an error of graphql-core is about, so that clients are told by name."""

import re
from collections.abc import Iterator
from typing import Final

from graphql import (
    ArgumentNode,
    DocumentNode,
    GraphQLError,
    Node,
    ObjectFieldNode,
    OperationDefinitionNode,
    ValueNode,
    VariableNode,
)

# graphql-core says where in a variable's value only in words:
# Variable '$input' has invalid value at .add[0]: ...
_IN_VARIABLE: Final = re.compile(r"Variable '\$(\w+)' has invalid value(?: at \.?([^:\s]+))?:")

# GraphQL's own scalars say what they refuse, not what they take.
_REFUSED_BY_SCALAR: Final = re.compile(
    r"(?:^|: )(?:Expected an? ?value of non-null type '|Expected value of non-null type ')?"
    r"(Int|ID|String|Boolean)(?: cannot represent|!')"
)
ALLOWED: Final = {
    "Int": "a whole number from -2147483648 to 2147483647",
    "ID": "a string or an integer, without fraction and exponent",
    "String": "a string",
    "Boolean": "true or false",
}


def name_argument(
    error: GraphQLError, document: DocumentNode, operation: OperationDefinitionNode | None
) -> GraphQLError:
    """Add `extensions.argument`, a dotted path like `input.expiresAt`, where one is at fault."""
    argument = _of_variable(error, operation or document) or _of_literal(error, document)
    if argument is None:
        return error
    refused = _REFUSED_BY_SCALAR.search(error.message)
    allowed = {"allowed": ALLOWED[refused[1]]} if refused else {}
    return GraphQLError(
        error.message,
        nodes=error.nodes,
        path=error.path,
        original_error=error.original_error,
        extensions={**allowed, **(error.extensions or {}), "argument": argument},
    )


def _of_variable(error: GraphQLError, within: Node) -> str | None:
    found = _IN_VARIABLE.match(error.message)
    if not found:
        return None
    name, inside = found.groups()
    for path, value in _values(within, ()):
        if isinstance(value, VariableNode) and value.name.value == name:
            return ".".join([*path, *re.findall(r"\w+", inside or "")])
    return None


def _of_literal(error: GraphQLError, document: DocumentNode) -> str | None:
    node = error.nodes[0] if error.nodes else None
    if not isinstance(node, ValueNode):
        return None
    for path, value in _values(document, ()):
        if value is node:
            return ".".join(path)
    return None


def _values(node: Node, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Node]]:
    """Every value below a node, with the names of the argument and fields that lead to it."""
    if isinstance(node, ArgumentNode):
        path = (node.name.value,)
    elif isinstance(node, ObjectFieldNode):
        path = (*path, node.name.value)
    elif isinstance(node, ValueNode):
        yield path, node
    for key in node.keys:
        child = getattr(node, key, None)
        for each in child if isinstance(child, list | tuple) else (child,):
            if isinstance(each, Node):
                yield from _values(each, path)
