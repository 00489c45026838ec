"""What a document may be, checked on its syntax alone, before it is validated.

Validation compares fields with each other, and so costs up to the square of a document's size. A
document is counted in one walk: tokens, aliases, directives, fragments, fields of the same name
beside each other, and list items as they are written; depth and root fields through fragments,
each of which is looked at once. The same walk checks the length of every name and number, because
responses repeat names and error messages repeat numbers.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from graphql import (
    DocumentNode,
    EnumValueNode,
    FieldNode,
    FloatValueNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    NameNode,
    Node,
    ObjectValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    parse,
)
from segmentql.graphql.types.errors import Code, limit_exceeded, shortened

MAX_FRAGMENTS: Final = 50
"""Fragments that a document may define."""

MAX_REPEATS: Final = 100
"""Fields that a document may give a name which another beside it has: they must be compared."""

MAX_VARIABLE_VALUES: Final = 10_000
"""Values in the lists and objects of all variables."""

MAX_NAME_CHARACTERS: Final = 255
"""Characters of one name: of a field, alias, argument, variable, fragment, operation or directive.

A response repeats an alias for each object, so a long alias multiplies."""

MAX_NUMBER_CHARACTERS: Final = 255
"""Characters of one number. Python refuses to convert integers of more than 4,300 digits."""

MAX_QUERY_CHARACTERS: Final = 262_144
"""Characters of a document. The lexer reads comments and strings one character at a time."""


@dataclass(frozen=True, kw_only=True)
class DocumentLimits:
    """What one operation may be; each is a setting, `SEGMENTQL_MAX_<NAME>`."""

    tokens: int
    depth: int
    aliases: int
    directives: int
    root_fields: int
    list_items: int
    cost: int
    response_bytes: int


def parse_within_limits(query: str, limits: DocumentLimits) -> DocumentNode:
    """Parse a document that is within the limits.

    Raises:
        GraphQLError: its syntax, or LIMIT_EXCEEDED. `value` is "at least" where counting stopped.
    """
    _check("query characters", len(query), MAX_QUERY_CHARACTERS)
    try:
        document = parse(query, max_tokens=limits.tokens)
        _unlink_tokens(document)
        DocumentAnalyzer(limits).check(document)
    except RecursionError:
        raise limit_exceeded("depth", limit=limits.depth, value=limits.depth + 1) from None
    except GraphQLError as error:
        if "contains more than" in error.message:
            raise limit_exceeded("tokens", limit=limits.tokens, value=limits.tokens + 1) from None
        raise
    return document


def _unlink_tokens(document: DocumentNode) -> None:
    """Let go of the chain that the tokens of a document are, of use to its parser alone.

    Linked forth and back it would keep what nobody remembers in memory, until the garbage collector
    looks through all there is.
    """
    token = document.loc.start_token if document.loc else None
    while token:
        following = token.next
        token.prev = token.next = None
        token = following


def check_variables(variables: Mapping[str, Any], limits: DocumentLimits) -> None:
    """Refuse variables with a list that is too long, or with too much in them.

    Raises:
        GraphQLError: with code LIMIT_EXCEEDED.
    """
    count = 0
    waiting = [(name, value) for name, value in variables.items() if isinstance(value, list | dict)]
    while waiting:
        name, inner = waiting.pop()
        count += len(inner)
        _check("variables", count, MAX_VARIABLE_VALUES)
        if isinstance(inner, list):
            _check(f"${name}", len(inner), limits.list_items)
        items = inner.values() if isinstance(inner, dict) else inner
        waiting += [(name, item) for item in items if isinstance(item, list | dict)]


def _check(what: str, value: int, limit: int) -> None:
    if value > limit:
        raise limit_exceeded(what, limit=limit, value=value)


def _check_number(node: IntValueNode | FloatValueNode) -> None:
    if len(node.value) > MAX_NUMBER_CHARACTERS:
        raise GraphQLError(
            f"The number {shortened(node.value)} is too long."
            f" A number may have at most {MAX_NUMBER_CHARACTERS} characters.",
            nodes=node,
            extensions={
                "code": Code.LIMIT_EXCEEDED,
                "argument": "number characters",
                "limit": MAX_NUMBER_CHARACTERS,
                "value": len(node.value),
            },
        )


class DocumentAnalyzer:
    """Counts one document."""

    def __init__(self, limits: DocumentLimits) -> None:
        self._limits = limits
        self._aliases = self._directives = self._repeats = 0
        self._fragments: dict[str, FragmentDefinitionNode] = {}
        self._depths: dict[str, int] = {}
        self._roots: dict[str, int] = {}

    def check(self, document: DocumentNode) -> None:
        fragments = [n for n in document.definitions if isinstance(n, FragmentDefinitionNode)]
        _check("fragments", len(fragments), MAX_FRAGMENTS)
        self._fragments = {node.name.value: node for node in fragments}
        operations = [n for n in document.definitions if isinstance(n, OperationDefinitionNode)]
        for node in (*operations, *fragments):
            self._count(node)
        _check("aliases", self._aliases, self._limits.aliases)
        _check("directives", self._directives, self._limits.directives)
        _check("repeated fields", self._repeats, MAX_REPEATS)
        for operation in operations:
            _check("root fields", self._root(operation), self._limits.root_fields)
            self._check_depth(self._depth(operation.selection_set))

    def _count(self, definition: Node) -> None:
        waiting: list[tuple[Node, int]] = [(definition, 0)]  # with how deep a value lies in others
        while waiting:
            node, inside = waiting.pop()
            self._directives += len(getattr(node, "directives", None) or ())
            if isinstance(node, FieldNode):
                self._aliases += node.alias is not None
            if isinstance(node, FieldNode | FragmentDefinitionNode | OperationDefinitionNode):
                self._count_repeats(node.selection_set)
            elif isinstance(node, NameNode | EnumValueNode):
                _check("name characters", len(node.value), MAX_NAME_CHARACTERS)
            elif isinstance(node, IntValueNode | FloatValueNode):
                _check_number(node)
            elif isinstance(node, ListValueNode):
                _check("list items", len(node.values), self._limits.list_items)
            if isinstance(node, ListValueNode | ObjectValueNode):
                inside += 1
                self._check_depth(inside)
            waiting.extend((child, inside) for child in _children(node))

    def _count_repeats(self, selection_set: SelectionSetNode | None) -> None:
        if selection_set is None:
            return
        names = [(node.alias or node.name).value for node in _fields(selection_set)]
        self._repeats += len(names) - len(set(names))

    def _check_depth(self, depth: int) -> None:
        _check("depth", depth, self._limits.depth)

    def _depth(self, selection_set: SelectionSetNode | None) -> int:
        """Fields below each other, at most; those of a fragment count where it is spread."""
        if selection_set is None:
            return 0
        depth = 0
        for node in selection_set.selections:
            if isinstance(node, FieldNode):
                found = 1 + self._depth(node.selection_set)
            elif isinstance(node, InlineFragmentNode):
                found = self._depth(node.selection_set)
            else:
                found = self._of_fragment(node, self._depths, self._depth)
            depth = max(depth, found)
            self._check_depth(depth)
        return depth

    def _root(self, definition: OperationDefinitionNode) -> int:
        return self._roots_in(definition.selection_set)

    def _roots_in(self, selection_set: SelectionSetNode) -> int:
        count = 0
        for node in selection_set.selections:
            if isinstance(node, FieldNode):
                count += 1
            elif isinstance(node, InlineFragmentNode):
                count += self._roots_in(node.selection_set)
            else:
                count += self._of_fragment(node, self._roots, self._roots_in)
        return count

    def _of_fragment(
        self,
        node: Node,
        known: dict[str, int],
        count: Callable[[SelectionSetNode], int],
    ) -> int:
        assert isinstance(node, FragmentSpreadNode)  # noqa: S101 - the only kind that is left
        name = node.name.value
        if name not in known:
            known[name] = 0  # meanwhile: one that spreads itself is refused by validation
            fragment = self._fragments.get(name)
            known[name] = count(fragment.selection_set) if fragment else 0
        return known[name]


def _fields(selection_set: SelectionSetNode) -> Iterable[FieldNode]:
    """The fields of a selection set and of the inline fragments in it."""
    waiting = [selection_set]
    while waiting:
        for node in waiting.pop().selections:
            if isinstance(node, FieldNode):
                yield node
            elif isinstance(node, InlineFragmentNode):
                waiting.append(node.selection_set)


def _children(node: Node) -> Iterable[Node]:
    for key in node.keys:
        child = getattr(node, key, None)
        for each in child if isinstance(child, list | tuple) else (child,):
            if isinstance(each, Node):
                yield each
