"""The breaking changes of the schema for clients of a released schema.

A part of the schema may be removed only if a released schema marks it as deprecated, and not before
the date that the reason of its deprecation names.
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
    """Return the date from which a deprecated node may be removed; None if it names no date."""
    directives: tuple[DirectiveNode, ...] = getattr(node, "directives", None) or ()
    for directive in directives:
        if directive.name.value != "deprecated":
            continue
        for argument in directive.arguments or ():
            value = argument.value
            match = _DATE.search(value.value) if isinstance(value, StringValueNode) else None
            if match:
                return date.fromisoformat(match[0])
    return None


def breaking_changes(released: str, current: str, *, on: date | None) -> list[str]:
    """Return the breaking changes from a released schema to the current one, one line each.

    Args:
        released: The released schema in GraphQL's schema definition language.
        current: The current schema.
        on: The date of the release. Parts that may be removed on this date are not breaking
            changes. If it is None, no part may be removed.

    Raises:
        BadValue: `released` is not a schema.
    """
    try:
        document = visit(parse(released), _RemovalVisitor(on)) if on else parse(released)
        old = build_ast_schema(document)
    except (GraphQLSyntaxError, TypeError, ValueError) as error:
        raise BadValue(
            f"not a schema: {error}", "the output of `segmentql schema` at a release"
        ) from None
    breaking_removals = {f"{name} was removed." for name in _reachable(old)}
    return sorted(
        change.description
        for change in find_breaking_changes(old, build_schema(current))
        if change.type is not BreakingChangeType.TYPE_REMOVED
        or change.description in breaking_removals
    )


def _reachable(schema: GraphQLSchema) -> set[str]:
    """Return the names of the types that clients can reach; only removable parts use the others."""
    names: set[str] = set()
    waiting: list[GraphQLNamedType] = [
        root for root in (schema.query_type, schema.mutation_type) if root
    ]
    while waiting:
        type_ = waiting.pop()
        if type_.name in names:
            continue
        names.add(type_.name)
        if isinstance(type_, GraphQLInterfaceType | GraphQLUnionType):
            waiting.extend(schema.get_possible_types(type_))
        if isinstance(type_, GraphQLInputObjectType):
            waiting.extend(get_named_type(field.type) for field in type_.fields.values())
        elif isinstance(type_, GraphQLObjectType | GraphQLInterfaceType):
            waiting.extend(type_.interfaces)
            for field in type_.fields.values():
                arguments = [argument.type for argument in field.args.values()]
                waiting.extend(map(get_named_type, (field.type, *arguments)))
    return names


class _RemovalVisitor(Visitor):
    """A visitor that removes the nodes that may be removed on a date."""

    def __init__(self, on: date) -> None:
        super().__init__()
        self._on = on

    def enter(self, node: Node, *_: object) -> VisitorAction:
        removable_from = removal_date(node)
        return REMOVE if removable_from and removable_from <= self._on else None
