"""The schema of the service as a subgraph of Apollo Federation 2, which a gateway composes.

It has the queries of users and segments, and the entities `User` and `Segment`. It is a schema of
its own, with the same types, at a path of its own: `docs/federation.md`.

Source: https://www.apollographql.com/docs/graphos/reference/federation/subgraph-specific-fields
"""

import asyncio
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Annotated, Any, Final, NewType, TypeVar

import strawberry
from strawberry.schema.config import StrawberryConfig

from graphql import (
    ConstDirectiveNode,
    DefinitionNode,
    GraphQLError,
    ObjectTypeDefinitionNode,
    parse,
    print_ast,
)
from segmentql import validators
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import cost
from segmentql.graphql.types.errors import bad_request, limit_exceeded
from segmentql.graphql.types.nodes import declare_nodes
from segmentql.graphql.types.scalars import SCALARS
from segmentql.graphql.types.validation import argument_value
from segmentql.segments.api import Segment, SegmentQueries
from segmentql.segments.loaders import SegmentBySlug
from segmentql.segments.records import SegmentRecord
from segmentql.users.api import User, UserQueries
from segmentql.users.loaders import UserById
from segmentql.users.records import UserRecord

N = TypeVar("N")

SPECIFICATION: Final = "https://specs.apollo.dev/federation/v2.0"

DIRECTIVES: Final = {
    "User": '@key(fields: "id")',
    "Segment": '@key(fields: "slug")',
    "PageInfo": "@shareable",
}
"""The directives of types in the subgraph's SDL. Every subgraph with pages has a `PageInfo`."""

NOT_IN_SDL: Final = frozenset({"_Any", "_Entity", "_Service", "_entities", "_service", "Node"})
"""The types and fields that a gateway adds itself; and `Node`, which no query of the subgraph
returns."""

Representation = NewType("Representation", object)
"""The type and the key of an entity, as a gateway sends them: `{"__typename": "User", "id": "1"}`.
"""

_Entity = Annotated[User | Segment, strawberry.union("_Entity", description="An entity.")]


@strawberry.type(name="_Service", description="The subgraph.")
class SubgraphService:
    sdl: str = strawberry.field(description="The schema, from which a gateway composes its own.")


@strawberry.type(name="Query", description="The queries of the subgraph.")
class SubgraphQuery(UserQueries, SegmentQueries):
    @strawberry.field(
        name="_service", description="The subgraph.", graphql_type=SubgraphService | None
    )
    def service(self) -> SubgraphService:
        return SubgraphService(sdl=subgraph_sdl())

    @strawberry.field(
        name="_entities",
        description="Entities in the order of `representations`. Null for each user that is not"
        " stored, and for each slug that no existing segment has.",
        graphql_type=list[_Entity | None],
        metadata=cost(size_of="representations"),
    )
    async def entities(
        self,
        info: Info,
        representations: Annotated[
            list[Representation],
            strawberry.argument(description="The types and keys of the entities, at most 1000."),
        ],
    ) -> list[UserRecord | SegmentRecord | GraphQLError | None]:
        return await _load_entities(info, representations)


async def _load_entities(
    info: Info, representations: Sequence[object]
) -> list[UserRecord | SegmentRecord | GraphQLError | None]:
    """Load entities in one batch for each type.

    Returns:
        The entities in the order of the representations. An invalid representation has an error in
        its place, so that it does not affect the others.

    Raises:
        GraphQLError: There are more than `MAX_ENTITIES` representations (LIMIT_EXCEEDED).
    """
    if len(representations) > validators.MAX_ENTITIES:
        raise limit_exceeded(
            "representations", limit=validators.MAX_ENTITIES, value=len(representations)
        )
    errors: dict[int, GraphQLError] = {}
    user_ids: dict[int, int] = {}
    slugs: dict[int, str] = {}
    for position, representation in enumerate(representations):
        try:
            key = _parse_key(representation, f"representations.{position}")
        except GraphQLError as error:
            errors[position] = error
            continue
        if isinstance(key, int):
            user_ids[position] = key
        elif validators.is_slug(key):  # no segment has another slug
            slugs[position] = key
    users, segments = await asyncio.gather(
        info.context.loader(UserById).load_many(list(user_ids.values())),
        info.context.loader(SegmentBySlug).load_many(list(slugs.values())),
    )
    found: dict[int, UserRecord | SegmentRecord | GraphQLError | None] = {
        **errors,
        **dict(zip(user_ids, users, strict=True)),
        **dict(zip(slugs, segments, strict=True)),
    }
    return [found.get(position) for position in range(len(representations))]


def _parse_key(representation: object, argument: str) -> int | str:
    """Return the id of a user, or the slug of a segment.

    Raises:
        GraphQLError: The representation is not one of a user or segment (BAD_REQUEST).
    """
    fields = representation if isinstance(representation, dict) else {}
    match fields.get("__typename"):
        case "User":
            user_id = fields.get("id")
            if isinstance(user_id, int) and not isinstance(user_id, bool):
                user_id = str(user_id)  # as the scalar ID accepts it
            name = f"{argument}.id"
            if not isinstance(user_id, str):
                raise bad_request(name, "the value is not an id", validators.USER_ID_ALLOWED)
            return argument_value(validators.user_id, user_id, name)
        case "Segment":
            slug = fields.get("slug")
            if not isinstance(slug, str):
                name = f"{argument}.slug"
                raise bad_request(name, "the value is not a string", validators.SLUG_ALLOWED)
            return slug
    raise bad_request(
        argument,
        "the value is not an entity of this subgraph",
        "an object whose `__typename` is User, with `id`, or Segment, with `slug`",
    )


@cache
def make_subgraph() -> strawberry.Schema:
    """Return the schema of the subgraph."""
    any_scalar = strawberry.scalar(
        name="_Any",
        description="The type and the key of an entity.",
        serialize=lambda value: value,
        parse_value=lambda value: value,
    )
    schema = strawberry.Schema(
        query=SubgraphQuery,
        config=StrawberryConfig(scalar_map={**SCALARS, Representation: any_scalar}),
    )
    declare_nodes(schema._schema)
    return schema


@cache
def subgraph_sdl() -> str:
    """Return the SDL of the subgraph, with the directives of Federation."""
    names = ", ".join(sorted({f'"{text.partition("(")[0]}"' for text in DIRECTIVES.values()}))
    document = parse(make_subgraph().as_str())
    printed = [
        print_ast(_federated(definition))
        for definition in document.definitions
        if _name(definition) not in NOT_IN_SDL
    ]
    link = f'extend schema @link(url: "{SPECIFICATION}", import: [{names}])'
    return "\n\n".join([link, *printed])


def _name(node: Any) -> str | None:
    return node.name.value if getattr(node, "name", None) else None


def _without_hidden(nodes: Iterable[N] | None) -> tuple[N, ...]:
    return tuple(node for node in nodes or () if _name(node) not in NOT_IN_SDL)


def _federated(definition: DefinitionNode) -> DefinitionNode:
    """Add the directives of Federation to a type, and remove what `NOT_IN_SDL` names."""
    if not isinstance(definition, ObjectTypeDefinitionNode):
        return definition
    directives = DIRECTIVES.get(definition.name.value)
    return ObjectTypeDefinitionNode(
        name=definition.name,
        description=definition.description,
        interfaces=_without_hidden(definition.interfaces),
        directives=_parse_directives(directives) if directives else definition.directives,
        fields=_without_hidden(definition.fields),
    )


def _parse_directives(text: str) -> tuple[ConstDirectiveNode, ...] | None:
    (definition,) = parse(f"type T {text} {{ id: ID }}").definitions
    assert isinstance(definition, ObjectTypeDefinitionNode)  # noqa: S101 - the text has one type
    return definition.directives
