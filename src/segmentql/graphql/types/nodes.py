"""Objects that clients can fetch by their id alone: the interface `Node` and the query `node`.

Each feature registers its types with `register_node`. The values of a field are records, not
instances of Strawberry's types, so the class of a record decides which type an object has.

Source: https://relay.dev/graphql/objectidentification.htm
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, cast

import strawberry
from strawberry.types.base import StrawberryObjectDefinition

from graphql import GraphQLInterfaceType, GraphQLObjectType, GraphQLSchema, GraphQLUnionType
from segmentql import validators
from segmentql.errors import BadValue
from segmentql.graphql.context import Info
from segmentql.graphql.execution.input_coercion import DEFINITION
from segmentql.graphql.types.errors import bad_request


@strawberry.interface(description="An object that `node` returns by its id.")
class Node:
    id: strawberry.ID = strawberry.field(
        description="The id: a number for a user, otherwise opaque with a prefix for the type."
    )


@dataclass(frozen=True, slots=True)
class _NodeType:
    """A type of objects that clients can fetch by their id."""

    name: str
    record: type
    prefix: str
    parse: Callable[[str], Any]
    load: Callable[[Info, Any], Awaitable[Any]]


_BY_PREFIX: Final[dict[str, _NodeType]] = {}
_BY_RECORD: Final[dict[type, _NodeType]] = {}
_BY_ORIGIN: Final[dict[type, _NodeType]] = {}


def register_node(
    kind: type,
    record: type,
    prefix: str,
    load: Callable[[Info, Any], Awaitable[Any]],
    *,
    parse: Callable[[str], Any] = validators.user_id,
) -> None:
    """Register a type whose objects clients can fetch by their id.

    Args:
        kind: The Strawberry type. It gets the interface `Node`.
        record: The class of its records. No other type has the same class.
        prefix: The first part of the ids, such as `seg_`; empty for users.
        load: Returns the record that `parse` found, if it exists and the caller may read it, else
            None.
        parse: Returns what the rest of an id means: by default a number from 1 to `MAX_USER_ID`.
            It raises BadValue if the rest is invalid.
    """
    definition = _definition(kind)
    definition.interfaces.append(_definition(Node))
    node_type = _NodeType(definition.name, record, prefix, parse, load)
    _BY_PREFIX[prefix] = _BY_RECORD[record] = _BY_ORIGIN[kind] = node_type


def _definition(kind: type) -> StrawberryObjectDefinition:
    definition = cast("Any", kind).__strawberry_definition__
    assert isinstance(definition, StrawberryObjectDefinition)  # noqa: S101 - a mistake in the code
    return definition


def class_of_values(origin: type) -> type:
    """Return the class of the values of a Strawberry type: the type itself unless it is a node."""
    node_type = _BY_ORIGIN.get(origin)
    return node_type.record if node_type else origin


def declare_nodes(schema: GraphQLSchema) -> None:
    """Let graphql-core find the types of nodes by the classes of their records.

    Strawberry would accept instances of its types only.
    """
    names = {node_type.name for node_type in _BY_RECORD.values()}
    for kind in schema.type_map.values():
        if isinstance(kind, GraphQLObjectType) and _is_node(kind):
            kind.is_type_of = None
        elif isinstance(kind, GraphQLInterfaceType | GraphQLUnionType):
            types = {possible.name for possible in schema.get_possible_types(kind)}
            if types and types <= names:
                kind.resolve_type = _type_name


def _is_node(kind: GraphQLObjectType) -> bool:
    return getattr(kind.extensions.get(DEFINITION), "origin", None) in _BY_ORIGIN


def _type_name(value: Any, *_: object) -> str:
    return _BY_RECORD[type(value)].name


@strawberry.type
class NodeQueries:
    @strawberry.field(
        description="One object of a type that implements `Node`, by its id. Null if it does not"
        " exist now, or if the caller may not see it. API keys need ADMIN.",
        graphql_type=Node | None,
    )
    def node(
        self,
        info: Info,
        id: Annotated[  # noqa: A002 - the name of the GraphQL argument
            strawberry.ID,
            strawberry.argument(description="The object's id. A number is the id of a user."),
        ],
    ) -> Awaitable[object]:
        first, separator, rest = id.rpartition("_")
        node_type = _BY_PREFIX.get(first + separator)
        if node_type:
            try:
                return node_type.load(info, node_type.parse(rest))
            except BadValue:
                pass
        # The message does not quote the value, because it may be an API key with its secret.
        prefixes = ", ".join(sorted(filter(None, _BY_PREFIX)))
        raise bad_request(
            "id",
            "the value is not the id of a node",
            f"the number of a user, or an id that begins with one of {prefixes}",
        )
