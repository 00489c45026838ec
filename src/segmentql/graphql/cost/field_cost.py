"""The declared cost of a field, beyond the cost that its type implies.

    member_count: int = strawberry.field(metadata=cost(SCAN), ...)
    description: str | None = strawberry.field(metadata=cost(characters=4096), ...)

`query_cost.py` adds the declared costs of a query's fields.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from strawberry.types.field import StrawberryField

from graphql import GraphQLField
from segmentql import validators

SCAN: Final = 100
"""The weight of a field whose statement reads every row of a segment, for instance to count them.

An index-only scan of 100,000 rows takes about as long as reading 100 objects."""

USER_SCAN: Final = 5_000
"""The weight of a field whose statement hashes every user, which takes seconds if there are
millions. An operation within the default limit has at most four."""

HISTORY_SCAN: Final = 3
"""The weight of a field whose statement may read the whole history of one user or segment, some
thousand rows, for one page."""

HISTORY_REPLAY: Final = 10
"""The weight of a field that reads and sorts a user's whole history up to a point in time."""

SEGMENT_REPLAY: Final = 40
"""The weight of a field that counts the joins and leaves of a segment up to points in time.

PostgreSQL reads sums of whole hours, and the rows of those hours that a point divides."""

CHARACTERS_PER_COST: Final = 4096
"""The number of characters of a text that cost as much as an object."""

_METADATA_KEY: Final = "segmentql.cost"


@dataclasses.dataclass(frozen=True)
class FieldCost:
    """The declared cost of a field."""

    weight: int = 0
    """The cost that each object with the field adds."""
    size: int | None = None
    """The size of the field's list; None: the size is an argument, or an estimate."""
    size_of: str | None = None
    """The name of the list argument that has as many items as the field's list."""
    size_argument: str = "first"
    """The name of the integer argument that is the size of the field's list or page."""
    max_first: int = validators.MAX_PAGE_ROWS
    """The largest value of that argument that the field accepts."""
    if_given: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """The cost that an argument adds to `weight` if the client gives it, by its name."""
    input_lists: Sequence[str] = ()
    """The names of lists in the argument `input`. Each of their items adds 1."""
    if_true: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """The cost that a Boolean in the argument `input` adds to `weight` if it is true, by its name.
    """


def cost(
    weight: int = 0,
    *,
    size: int | None = None,
    size_of: str | None = None,
    size_argument: str = "first",
    max_first: int = validators.MAX_PAGE_ROWS,
    characters: int = 0,
    if_given: Mapping[str, int] | None = None,
    input_lists: Sequence[str] = (),
    if_true: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Return the `metadata` of a field that declares its cost.

    Args:
        weight: The cost that each object with the field adds.
        size: The size of the field's list, if it is known.
        size_of: The name of the list argument that has as many items as the field's list.
        size_argument: The name of the integer argument that is the size of the field's list.
        max_first: The largest value of that argument that the field accepts.
        characters: The maximum length of the field's text, or of all texts of its list together.
        if_given: The cost that an argument adds to `weight` if the client gives it, by its name.
        input_lists: The names of lists in the argument `input`. Each of their items adds 1.
        if_true: The cost that a Boolean in the argument `input` adds to `weight` if it is true, by
            its name.
    """
    total = weight + characters // CHARACTERS_PER_COST
    return {
        _METADATA_KEY: FieldCost(
            total,
            size,
            size_of,
            size_argument,
            max_first,
            if_given=if_given or {},
            input_lists=input_lists,
            if_true=if_true or {},
        )
    }


def declared_cost(field: GraphQLField) -> FieldCost:
    """Return the declared cost of a field, or the default if it declares none."""
    definition = field.extensions.get("strawberry-definition")
    metadata = definition.metadata if isinstance(definition, StrawberryField) else {}
    declared: FieldCost = (metadata or {}).get(_METADATA_KEY, FieldCost())
    return declared
