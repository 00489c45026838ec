"""Paths of nodes in a document: the argument, and the input fields and list positions below it."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from graphql import (
    ArgumentNode,
    DocumentNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    ListValueNode,
    Node,
    ObjectFieldNode,
    OperationDefinitionNode,
    TypeInfo,
    VariableNode,
)

Path: TypeAlias = tuple[str, ...]
"""The name of an argument, and the input fields and the positions in lists below it."""


def walk(node: Node, info: TypeInfo | None = None) -> Iterator[tuple[Path, Node]]:
    """Yield every node with its path, in the order of the document.

    Args:
        node: The node to begin with.
        info: If not None, it has the type of a node while the node is yielded.
    """
    stack: list[tuple[Node, Path, bool]] = [(node, (), False)]
    while stack:
        node, path, is_left = stack.pop()
        if is_left:
            if info:
                info.leave(node)
            continue
        if info:
            info.enter(node)
            stack.append((node, path, True))
        if isinstance(node, ArgumentNode):
            path = (node.name.value,)
        elif isinstance(node, ObjectFieldNode):
            path = (*path, node.name.value)
        yield path, node
        stack.extend((child, below, False) for child, below in reversed(_children(node, path)))


def _children(node: Node, path: Path) -> list[tuple[Node, Path]]:
    children = []
    for key in node.keys:
        child = getattr(node, key, None)
        is_list = isinstance(node, ListValueNode) and key == "values"
        for index, item in enumerate(child if isinstance(child, list | tuple) else (child,)):
            if isinstance(item, Node):
                children.append((item, (*path, str(index)) if is_list else path))
    return children


def paths_of_variables(
    document: DocumentNode, operation: OperationDefinitionNode
) -> Mapping[str, Path]:
    """Return the path of the first argument that has a variable, by the name of the variable.

    Only the operation and the fragments that it uses are read.
    """
    fragments = {
        definition.name.value: definition
        for definition in document.definitions
        if isinstance(definition, FragmentDefinitionNode)
    }
    paths: dict[str, Path] = {}
    unread: list[Node] = [operation]
    while unread:
        for path, node in walk(unread.pop()):
            if isinstance(node, VariableNode) and path:
                paths.setdefault(node.name.value, path)
            elif isinstance(node, FragmentSpreadNode):
                fragment = fragments.pop(node.name.value, None)
                if fragment:
                    unread.append(fragment)
    return paths
