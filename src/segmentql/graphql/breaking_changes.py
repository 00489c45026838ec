"""What a change of the schema breaks for clients of a released one.

What a release shows as deprecated may go from the date that its reason names; all else stays.
"""

import re
from datetime import date
from typing import Final

from graphql.language import REMOVE

from graphql import (
    BreakingChangeType,
    DirectiveNode,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLSyntaxError,
    GraphQLUnionType,
    Node,
    StringValueNode,
    Visitor,
    VisitorAction,
    build_ast_schema,
    build_schema,
    find_breaking_changes,
    get_named_type,
    parse,
    visit,
)
from segmentql.errors import BadValue

_DATE: Final = re.compile(r"\b\d{4}-\d\d-\d\d\b")


def removal_date(node: Node) -> date | None:
    """The day from which something deprecated may be gone; None where no day is named."""
    directives: tuple[DirectiveNode, ...] = getattr(node, "directives", None) or ()
    for directive in directives:
        if directive.name.value != "deprecated":
            continue
        for argument in directive.arguments or ():
            value = argument.value
            found = _DATE.search(value.value) if isinstance(value, StringValueNode) else None
            if found:
                return date.fromisoformat(found[0])
    return None


def breaking_changes(released: str, now: str, *, on: date | None) -> list[str]:
    """Every change from a released schema to that of now that breaks clients, in a line each.

    What the release says may go by the day `on` is no such change; None: nothing may go.

    Raises:
        BadValue: `released` is no schema.
    """
    try:
        document = visit(parse(released), _Gone(on)) if on else parse(released)
        old = build_ast_schema(document)
    except (GraphQLSyntaxError, TypeError, ValueError) as error:
        raise BadValue(
            f"not a schema: {error}", "what `segmentql schema` printed at a release"
        ) from None
    needed = {f"{name} was removed." for name in _reachable(old)}
    return sorted(
        change.description
        for change in find_breaking_changes(old, build_schema(now))
        if change.type is not BreakingChangeType.TYPE_REMOVED or change.description in needed
    )


def _reachable(schema: GraphQLSchema) -> set[str]:
    """The types that clients can name: the others were of what may be gone."""
    found: set[str] = set()
    waiting: list[GraphQLNamedType] = [
        root for root in (schema.query_type, schema.mutation_type) if root
    ]
    while waiting:
        kind = waiting.pop()
        if kind.name in found:
            continue
        found.add(kind.name)
        if isinstance(kind, GraphQLInterfaceType | GraphQLUnionType):
            waiting.extend(schema.get_possible_types(kind))
        if isinstance(kind, GraphQLInputObjectType):
            waiting.extend(get_named_type(field.type) for field in kind.fields.values())
        elif isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            waiting.extend(kind.interfaces)
            for field in kind.fields.values():
                arguments = [argument.type for argument in field.args.values()]
                waiting.extend(get_named_type(given) for given in (field.type, *arguments))
    return found


class _Gone(Visitor):
    """Leaves out what may be gone by a day."""

    def __init__(self, on: date) -> None:
        super().__init__()
        self._on = on

    def enter(self, node: Node, *_: object) -> VisitorAction:
        day = removal_date(node)
        return REMOVE if day and day <= self._on else None
