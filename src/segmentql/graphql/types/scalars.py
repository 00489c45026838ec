"""The scalars DateTime and BigInt, and a stricter ID."""

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
    """Parse a date and time of RFC 3339 and return it in UTC.

    The offset is required. Digits of a second beyond the sixth are dropped.

    Raises:
        GraphQLError: The value is invalid (BAD_REQUEST).

    Source: https://www.rfc-editor.org/rfc/rfc3339#section-5.6
    """
    if isinstance(value, str) and _DATE_TIME.fullmatch(value):
        text = re.sub(r"(\.\d{6})\d+", r"\1", value.upper())
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # the day or hour does not exist, or the year in UTC is not 1 to 9999
    raise GraphQLError(
        f"{str(value)[:40]!r} is not a DateTime.",
        nodes=node,
        extensions={"code": Code.BAD_REQUEST, "allowed": DATE_TIME_ALLOWED},
    )


def parse_date_time_literal(node: ValueNode, _variables: object = None) -> datetime:
    """Parse a literal of a document like `parse_date_time` parses a variable."""
    return parse_date_time(
        node.value if isinstance(node, StringValueNode) else print_ast(node), node
    )


def serialize_date_time(timestamp: datetime) -> str:
    """Return a timestamp in UTC with six digits of a second and `Z`."""
    if timestamp.tzinfo is not UTC:  # timestamps of the database are in UTC
        timestamp = timestamp.astimezone(UTC)
    return timestamp.isoformat(timespec="microseconds")[:-6] + "Z"


def _parse_id(value: object) -> str:
    """Return the id in a variable, which must be a string or an integer.

    graphql-core also accepts floats without a fraction, but a float cannot represent every id:
    1234567890123456789.0 is 1234567890123456768.

    Raises:
        GraphQLError: The value is neither a string nor an integer.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise GraphQLError(f"ID cannot represent value: {inspect(value)}")


class _IdType(GraphQLScalarType):
    reserved_types: Mapping[str, GraphQLNamedType] = {}
    """The reserved names: none, because graphql-core reserves `ID` for its own type."""


ID: Final = _IdType(
    GraphQLID.name,
    description=GraphQLID.description,
    coerce_output_value=GraphQLID.coerce_output_value,
    coerce_input_value=_parse_id,
    coerce_input_literal=GraphQLID.coerce_input_literal,
    value_to_literal=GraphQLID.value_to_literal,
)
"""The scalar ID. It rejects numbers with a fraction or an exponent, as the specification requires.

Source: https://spec.graphql.org/draft/#sec-ID.Input-Coercion"""

BigInt = NewType("BigInt", int)
"""An integer that may be larger than GraphQL's Int."""

MAX_EXACT_INTEGER: Final = 2**53
"""The largest BigInt. Larger integers are not exact in the JSON of every client."""

BIG_INT_ALLOWED: Final = f"an integer up to {MAX_EXACT_INTEGER}"


def parse_big_int(value: object, node: ValueNode | None = None) -> int:
    """Return the integer in a variable or literal.

    Raises:
        GraphQLError: The value is invalid (BAD_REQUEST).
    """
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_EXACT_INTEGER:
        return value
    raise GraphQLError(
        f"{str(value)[:40]!r} is not a BigInt.",
        nodes=node,
        extensions={"code": Code.BAD_REQUEST, "allowed": BIG_INT_ALLOWED},
    )


SCALARS: Final[Mapping[object, ScalarDefinition]] = {
    strawberry.ID: ScalarDefinition(
        name=ID.name,
        description=ID.description,
        specified_by_url=ID.specified_by_url,
        serialize=ID.coerce_output_value,
        parse_value=ID.coerce_input_value,
        parse_literal=None,  # `implementation` has it
        implementation=ID,
        origin=ID,
    ),
    datetime: strawberry.scalar(
        name="DateTime",
        description=(
            "A timestamp in the format of RFC 3339. Outputs are in UTC, with six digits of a second"
            ' and "Z". Inputs need an offset.'
        ),
        specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
        serialize=serialize_date_time,
        parse_value=parse_date_time,
        parse_literal=parse_date_time_literal,
    ),
    BigInt: strawberry.scalar(
        name="BigInt",
        description="An integer up to 2^53, as a JSON number.",
        serialize=int,
        parse_value=parse_big_int,
    ),
}
