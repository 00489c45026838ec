"""The limits of a document, which are checked on its syntax tree before validation.

Validation compares fields in pairs, so its time grows with the square of a document's size. The
analysis takes linear time. It counts tokens, aliases, directives, fragments, repeated fields of one
selection set, and list items. It measures depth and counts root fields through fragments, each of
which it visits once. It also checks the length of every name and number, because responses repeat
names and error messages repeat numbers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from graphql import (
    DocumentNode,
    EnumValueNode,
    FieldNode,
    FloatValueNode,
    FragmentDefinitionNode,
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
from segmentql.graphql.selections import FieldCounter, Fragments, SelectionWalker, fragments_of
from segmentql.graphql.types.errors import Code, limit_exceeded, shorten_value

MAX_FRAGMENTS: Final = 50
"""The maximum number of fragments that a document defines."""

MAX_REPEATED_FIELDS: Final = 100
"""The maximum number of fields with the same response name as another field of their selection set.

Validation must compare them with each other."""

MAX_VARIABLE_VALUES: Final = 10_000
"""The maximum number of values in the lists and objects of all variables."""

NESTED: Final = (list, dict)
"""The types of values that contain values. Python would create `list | dict` for each check."""

MAX_NAME_CHARACTERS: Final = 255
"""The maximum length of a name: of a field, alias, argument, variable, fragment, operation or
directive. A response repeats an alias for each object, so a long alias multiplies."""

MAX_NUMBER_CHARACTERS: Final = 255
"""The maximum length of a number. Python does not convert integers of more than 4,300 digits."""

MAX_QUERY_CHARACTERS: Final = 262_144
"""The maximum length of a document. The lexer reads comments and strings character by character."""


@dataclass(frozen=True, kw_only=True)
class DocumentLimits:
    """The limits of a document and of its operations.

    Each is a setting, `SEGMENTQL_MAX_<NAME>`.
    """

    tokens: int
    depth: int
    aliases: int
    directives: int
    root_fields: int
    list_items: int
    cost: int
    response_bytes: int


def parse_within_limits(query: str, limits: DocumentLimits) -> DocumentNode:
    """Parse a document and check its limits.

    Raises:
        GraphQLError: The syntax is invalid, or a limit is exceeded (LIMIT_EXCEEDED). The `value` of
            the error is a lower bound if counting stopped at the limit.
    """
    _check_limit("query characters", len(query), MAX_QUERY_CHARACTERS)
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
    """Remove the links between a document's tokens, which only the parser uses.

    The doubly linked tokens are reference cycles. They would keep the memory of a discarded
    document until a full run of the garbage collector.
    """
    token = document.loc.start_token if document.loc else None
    while token:
        following = token.next
        token.prev = token.next = None
        token = following


def check_variables(variables: Mapping[str, Any], limits: DocumentLimits) -> None:
    """Check the length of every list in the variables, and the number of all values in them.

    Raises:
        GraphQLError: A limit is exceeded (LIMIT_EXCEEDED).
    """
    count = 0
    waiting = [(name, value) for name, value in variables.items() if isinstance(value, NESTED)]
    while waiting:
        name, inner = waiting.pop()
        count += len(inner)
        _check_limit("variables", count, MAX_VARIABLE_VALUES)
        if isinstance(inner, list):
            _check_limit(f"${name}", len(inner), limits.list_items)
        items = inner.values() if isinstance(inner, dict) else inner
        waiting += [(name, item) for item in items if isinstance(item, NESTED)]


def _check_limit(argument: str, value: int, limit: int) -> None:
    if value > limit:
        raise limit_exceeded(argument, limit=limit, value=value)


def _check_number(node: IntValueNode | FloatValueNode) -> None:
    if len(node.value) > MAX_NUMBER_CHARACTERS:
        raise GraphQLError(
            f"The number {shorten_value(node.value)} is too long."
            f" A number can have at most {MAX_NUMBER_CHARACTERS} characters.",
            nodes=node,
            extensions={
                "code": Code.LIMIT_EXCEEDED,
                "argument": "number characters",
                "limit": MAX_NUMBER_CHARACTERS,
                "value": len(node.value),
            },
        )


class _DepthMeter(SelectionWalker[None, int]):
    """A walk that measures how many fields are nested in a selection set."""

    empty = 0

    def __init__(self, fragments: Fragments, limit: int) -> None:
        super().__init__(fragments)
        self._limit = limit

    def field(self, node: FieldNode, scope: None) -> int:
        return 1 + self.walk(node.selection_set, None)

    def combine(self, total: int, value: int) -> int:
        depth = max(total, value)
        _check_limit("depth", depth, self._limit)
        return depth


class DocumentAnalyzer:
    """An analysis of one document, which counts what is limited."""

    def __init__(self, limits: DocumentLimits) -> None:
        self._limits = limits
        self._aliases = self._directives = self._repeated_fields = 0

    def check(self, document: DocumentNode) -> None:
        """Check all limits of a document except its number of tokens.

        Raises:
            GraphQLError: A limit is exceeded (LIMIT_EXCEEDED).
        """
        definitions = document.definitions
        fragments = [node for node in definitions if isinstance(node, FragmentDefinitionNode)]
        operations = [node for node in definitions if isinstance(node, OperationDefinitionNode)]
        _check_limit("fragments", len(fragments), MAX_FRAGMENTS)
        for definition in (*operations, *fragments):
            self._count(definition)
        _check_limit("aliases", self._aliases, self._limits.aliases)
        _check_limit("directives", self._directives, self._limits.directives)
        _check_limit("repeated fields", self._repeated_fields, MAX_REPEATED_FIELDS)
        by_name = fragments_of(document)
        root_fields = FieldCounter(by_name)
        depth = _DepthMeter(by_name, self._limits.depth)
        for operation in operations:
            count = root_fields.walk(operation.selection_set, None)
            _check_limit("root fields", count, self._limits.root_fields)
            depth.walk(operation.selection_set, None)

    def _count(self, definition: Node) -> None:
        # Each node with the number of lists and objects of literal values around it.
        waiting: list[tuple[Node, int]] = [(definition, 0)]
        while waiting:
            node, depth = waiting.pop()
            self._directives += len(getattr(node, "directives", None) or ())
            if isinstance(node, FieldNode):
                self._aliases += node.alias is not None
            if isinstance(node, FieldNode | FragmentDefinitionNode | OperationDefinitionNode):
                self._count_repeated_fields(node.selection_set)
            elif isinstance(node, NameNode | EnumValueNode):
                _check_limit("name characters", len(node.value), MAX_NAME_CHARACTERS)
            elif isinstance(node, IntValueNode | FloatValueNode):
                _check_number(node)
            elif isinstance(node, ListValueNode):
                _check_limit("list items", len(node.values), self._limits.list_items)
            if isinstance(node, ListValueNode | ObjectValueNode):
                depth += 1
                _check_limit("depth", depth, self._limits.depth)
            waiting.extend((child, depth) for child in _children(node))

    def _count_repeated_fields(self, selection_set: SelectionSetNode | None) -> None:
        if selection_set is None:
            return
        names = [(node.alias or node.name).value for node in _fields(selection_set)]
        self._repeated_fields += len(names) - len(set(names))


def _fields(selection_set: SelectionSetNode) -> Iterable[FieldNode]:
    """Yield the fields of a selection set and of its inline fragments."""
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
        for item in child if isinstance(child, list | tuple) else (child,):
            if isinstance(item, Node):
                yield item
