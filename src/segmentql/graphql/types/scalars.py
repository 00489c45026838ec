"""Custom scalars: how they are read, written and described."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NewType

import strawberry
from graphql.pyutils import inspect
from strawberry.types.scalar import ScalarDefinition

from graphql import (
    GraphQLError,
    GraphQLID,
    GraphQLNamedType,
    GraphQLScalarType,
    StringValueNode,
    ValueNode,
    print_ast,
)
from segmentql.graphql.types.errors import Code

DATE_TIME_ALLOWED: Final = (
    "a date and time of RFC 3339 with an offset, like 2026-01-31T12:00:00Z"
    " or 2026-01-31T12:00:00.123456+03:00"
)
_DATE_TIME: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def parse_date_time(value: object, node: ValueNode | None = None) -> datetime:
    """Read RFC 3339 (https://www.rfc-editor.org/rfc/rfc3339#section-5.6) into a moment in UTC.

    An offset is required; digits of a second beyond the sixth are dropped.

    Raises:
        GraphQLError: with code BAD_REQUEST.
    """
    if isinstance(value, str) and _DATE_TIME.fullmatch(value):
        text = re.sub(r"(\.\d{6})\d+", r"\1", value.upper())
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # no such day or hour; or outside years 1 to 9999 once in UTC
    raise GraphQLError(
        f"{str(value)[:40]!r} is not a DateTime.",
        nodes=node,
        extensions={"code": Code.BAD_REQUEST, "allowed": DATE_TIME_ALLOWED},
    )


def parse_date_time_literal(node: ValueNode, _variables: object = None) -> datetime:
    """Read a literal of a document as `parse_date_time` reads a variable."""
    return parse_date_time(
        node.value if isinstance(node, StringValueNode) else print_ast(node), node
    )


def serialize_date_time(moment: datetime) -> str:
    """Write a moment in UTC with six digits of a second and `Z`."""
    if moment.tzinfo is not UTC:  # what comes from the database is
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")[:-6] + "Z"


def _id_of_json(value: object) -> str:
    """Read an id that a variable holds: a string or an integer.

    graphql-core also takes floats without a fraction, but a float does not hold every id:
    1234567890123456789.0 is 1234567890123456768.

    Raises:
        GraphQLError: for anything else.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise GraphQLError(f"ID cannot represent value: {inspect(value)}")


class _IdType(GraphQLScalarType):
    reserved_types: Mapping[str, GraphQLNamedType] = {}
    """graphql-core reserves the name for its own type."""


ID: Final = _IdType(
    GraphQLID.name,
    description=GraphQLID.description,
    coerce_output_value=GraphQLID.coerce_output_value,
    coerce_input_value=_id_of_json,
    coerce_input_literal=GraphQLID.coerce_input_literal,
    value_to_literal=GraphQLID.value_to_literal,
)
"""GraphQL's own ID, except that numbers with a fraction or an exponent are rejected, as the
specification wants it (https://spec.graphql.org/draft/#sec-ID.Input-Coercion)."""

BigInt = NewType("BigInt", int)
"""A whole number that may be larger than GraphQL's Int."""

LARGEST_EXACT: Final = 2**53
"""Beyond it, the numbers of JSON are not exact everywhere."""


def parse_big_int(value: object, node: ValueNode | None = None) -> int:
    """Read a whole number.

    Raises:
        GraphQLError: with code BAD_REQUEST.
    """
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_EXACT:
        return value
    raise GraphQLError(
        f"{str(value)[:40]!r} is not a BigInt.",
        nodes=node,
        extensions={"code": Code.BAD_REQUEST, "allowed": f"a whole number up to {LARGEST_EXACT}"},
    )


SCALARS: Final[Mapping[object, ScalarDefinition]] = {
    strawberry.ID: ScalarDefinition(
        name=ID.name,
        description=ID.description,
        specified_by_url=ID.specified_by_url,
        serialize=ID.coerce_output_value,
        parse_value=ID.coerce_input_value,
        parse_literal=None,  # the implementation has it
        implementation=ID,
        origin=ID,
    ),
    datetime: strawberry.scalar(
        name="DateTime",
        description=(
            "A moment as RFC 3339 writes it. Answers are in UTC with six digits of a second and"
            ' "Z"; inputs need an offset.'
        ),
        specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
        serialize=serialize_date_time,
        parse_value=parse_date_time,
        parse_literal=parse_date_time_literal,
    ),
    BigInt: strawberry.scalar(
        name="BigInt",
        description="A whole number up to 2^53, as a JSON number.",
        serialize=int,
        parse_value=parse_big_int,
    ),
}
