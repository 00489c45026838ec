"""The location of errors of graphql-core: the name of the invalid argument, for the client."""

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

# graphql-core gives the place in a variable's value only in the message:
# Variable '$input' has invalid value at .add[0]: ...
_IN_VARIABLE: Final = re.compile(r"Variable '\$(\w+)' has invalid value(?: at \.?([^:\s]+))?:")

# Messages of the built-in scalars say what is wrong, but not what is allowed.
_SCALAR_ERROR: Final = re.compile(
    r"(?:^|: )(?:Expected an? ?value of non-null type '|Expected value of non-null type ')?"
    r"(Int|ID|String|Boolean)(?: cannot represent|!')"
)
ALLOWED: Final = {
    "Int": "a whole number from -2147483648 to 2147483647",
    "ID": "a string or an integer, without fraction and exponent",
    "String": "a string",
    "Boolean": "true or false",
}
"""The allowed values of the built-in scalars."""


def name_argument(
    error: GraphQLError, document: DocumentNode, operation: OperationDefinitionNode | None
) -> GraphQLError:
    """Return the error with `extensions.argument` if an argument is invalid.

    Args:
        error: The error of graphql-core.
        document: The document.
        operation: The executed operation; None if the document is invalid.

    Returns:
        An error with the dotted path of the argument, such as `input.expiresAt`, and for a built-in
        scalar also with `extensions.allowed`. Other errors are returned unchanged.
    """
    argument = _argument_of_variable(error, operation or document)
    argument = argument or _argument_of_literal(error, document)
    if argument is None:
        return error
    scalar = _SCALAR_ERROR.search(error.message)
    allowed = {"allowed": ALLOWED[scalar[1]]} if scalar else {}
    return GraphQLError(
        error.message,
        nodes=error.nodes,
        path=error.path,
        original_error=error.original_error,
        extensions={**allowed, **(error.extensions or {}), "argument": argument},
    )


def _argument_of_variable(error: GraphQLError, root: Node) -> str | None:
    match = _IN_VARIABLE.match(error.message)
    if not match:
        return None
    name, path_in_value = match.groups()
    for path, value in _values(root, ()):
        if isinstance(value, VariableNode) and value.name.value == name:
            return ".".join([*path, *re.findall(r"\w+", path_in_value or "")])
    return None


def _argument_of_literal(error: GraphQLError, document: DocumentNode) -> str | None:
    node = error.nodes[0] if error.nodes else None
    if not isinstance(node, ValueNode):
        return None
    for path, value in _values(document, ()):
        if value is node:
            return ".".join(path)
    return None


def _values(node: Node, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Node]]:
    """Yield every value below a node with its path: the names of the argument and input fields."""
    if isinstance(node, ArgumentNode):
        path = (node.name.value,)
    elif isinstance(node, ObjectFieldNode):
        path = (*path, node.name.value)
    elif isinstance(node, ValueNode):
        yield path, node
    for key in node.keys:
        child = getattr(node, key, None)
        for item in child if isinstance(child, list | tuple) else (child,):
            if isinstance(item, Node):
                yield from _values(item, path)
