"""Generates valid and invalid requests from `schema.graphql` with schemathesis.

Generated strings lead to no rows, so some of them are replaced by values of stored rows.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import schemathesis
from hypothesis import strategies as st
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.graphql import nodes, scalar

from graphql import (
    ArgumentNode,
    FieldNode,
    GraphQLSyntaxError,
    IntValueNode,
    ListValueNode,
    NameNode,
    Node,
    ObjectFieldNode,
    ObjectValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionNode,
    SelectionSetNode,
    StringValueNode,
    ValueNode,
    Visitor,
    parse,
    print_ast,
    visit,
)
from tests.fuzz.requests import HttpRequest, graphql_request
from tests.fuzz.response_checks import ERRORS_ALIAS

SCHEMA: Final = Path(__file__).parents[2] / "schema.graphql"

# Values of each argument and input field: stored ones, and ones just beyond the limits.
KNOWN: Final[dict[str, tuple[str, ...]]] = {
    "id": ("1", "2", "3", "99", "9223372036854775807", "rep_1", "key_aaaaaaaaaaaa"),
    "userId": ("1", "2", "3", "99", "9223372036854775807", "9223372036854775808"),
    "key": ("one", "two", "unknown", "k" * 255, "k" * 256, "\x7f"),
    "userKey": ("one", "two", "new", "\n"),
    "slug": ("A", "B", "GONE", "NEW", "UNKNOWN", "A" * 255, "A" * 256),
    "prefix": ("A", "", "\x00"),
    "search": ("a", "'\\", "\x00", "%", "\U0010ffff", "a" * 256),
    "actor": ("ada", "", "\x00"),
    "from": ("2024-02-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"),
    "to": ("2024-02-01T00:00:00+23:59", "0001-01-01T00:00:00-23:59"),
    "asOf": ("2024-06-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    "startsAt": ("2999-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
    "expiresAt": ("2030-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
    "name": ("A name", "\x00", "\U0010ffff"),
}
NUMBERS: Final[dict[str, tuple[str, ...]]] = {
    "first": ("1", "100", "101", "0", "-1"),
    "points": ("1", "500", "501", "0"),
    "year": ("2024", "2025", "1999", "10000"),
    "month": ("1", "12", "13", "0"),
    "ttlSeconds": ("1", "315360000", "315360001"),
    "afterSeconds": ("0", "1", "2147483647"),
    "percent": ("0", "50", "100", "33.333", "1e400"),
    "expectedVersion": ("1", "2"),
}
ERRORS_SELECTION: Final = FieldNode(
    alias=NameNode(value=ERRORS_ALIAS),
    name=NameNode(value="errors"),
    selection_set=SelectionSetNode(selections=(FieldNode(name=NameNode(value="__typename")),)),
)
LISTS: Final = {"add": "slug", "remove": "slug", "ids": "id", "keys": "key"}

MOMENTS: Final = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.sampled_from(KNOWN["from"] + KNOWN["to"]),
    st.text(max_size=30),
)
scalar("DateTime", MOMENTS.map(nodes.String))
scalar("BigInt", st.integers().map(nodes.Int))


def operations() -> list[Any]:
    """Return one operation for each field of Query and Mutation."""
    schema = schemathesis.graphql.from_path(SCHEMA)
    return [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]


OPERATIONS: Final = operations()


@st.composite
def requests(draw: st.DrawFn, mode: GenerationMode) -> HttpRequest:
    """Draw a request that conforms to the schema, or one that violates it."""
    operation = draw(st.sampled_from(OPERATIONS))
    case = draw(operation.as_strategy(generation_mode=mode))
    if not isinstance(case.body, str):
        return HttpRequest(case.body if isinstance(case.body, bytes) else b"null")
    try:
        document = parse(case.body)
    except GraphQLSyntaxError:
        return graphql_request(case.body)
    changed = visit(document, _ValueReplacer(draw, often=draw(st.sampled_from((0, 2, 3, 4)))))
    return graphql_request(print_ast(changed))


class _ValueReplacer(Visitor):
    """Replaces generated values by stored ones, and selects the errors of mutations."""

    def __init__(self, draw: st.DrawFn, *, often: int) -> None:
        super().__init__()
        self._draw = draw
        self._often = often

    def enter_argument(self, node: ArgumentNode, *_: Any) -> Node | None:
        value = self._replacement(node.name.value, node.value)
        return replace(node, value=value) if value else None

    def enter_object_field(self, node: ObjectFieldNode, *_: Any) -> Node | None:
        value = self._replacement(node.name.value, node.value)
        return replace(node, value=value) if value else None

    def leave_field(self, node: FieldNode, *_: Any) -> Node | None:
        """Set `waitSeconds` to zero, because no report is generated here."""
        if node.name.value != "createReport":
            return None
        return replace(
            node,
            arguments=tuple(_without_waiting(each) for each in node.arguments or ()),
        )

    def leave_operation_definition(self, node: OperationDefinitionNode, *_: Any) -> Node | None:
        if node.operation is not OperationType.MUTATION:
            return None
        fields = tuple(_with_errors(field) for field in node.selection_set.selections)
        return replace(node, selection_set=SelectionSetNode(selections=fields))

    def _replacement(self, name: str, value: ValueNode) -> ValueNode | None:
        if self._draw(st.integers(0, 3)) >= self._often:
            return None
        if isinstance(value, StringValueNode) and name in KNOWN:
            return self._stored_value(name)
        if name in NUMBERS:
            return IntValueNode(value=self._draw(st.sampled_from(NUMBERS[name])))
        if name in LISTS:
            count = self._draw(st.integers(0, 3))
            return ListValueNode(
                values=tuple(self._stored_value(LISTS[name]) for _ in range(count))
            )
        return None

    def _stored_value(self, name: str) -> StringValueNode:
        return StringValueNode(value=self._draw(st.sampled_from(KNOWN[name])))


def _without_waiting(argument: ArgumentNode) -> ArgumentNode:
    value = argument.value
    if not isinstance(value, ObjectValueNode):
        return argument
    other_fields = [field for field in value.fields if field.name.value != "waitSeconds"]
    zero = ObjectFieldNode(name=NameNode(value="waitSeconds"), value=IntValueNode(value="0"))
    return replace(argument, value=ObjectValueNode(fields=(*other_fields, zero)))


def _with_errors(field: SelectionNode) -> SelectionNode:
    if not isinstance(field, FieldNode) or not field.selection_set:
        return field
    selections = (*field.selection_set.selections, ERRORS_SELECTION)
    return replace(field, selection_set=SelectionSetNode(selections=selections))
