"""GraphQL enums from Python enums, so that each enum is declared once."""

import enum
from collections.abc import Mapping
from typing import TypeVar

import strawberry
from strawberry.types.enum import StrawberryEnumDefinition

E = TypeVar("E", bound=enum.StrEnum)


def describe_enum(enum_type: type[E], description: str, values: Mapping[E, str]) -> None:
    """Make a Python enum usable as a GraphQL enum of the same name.

    Args:
        enum_type: The enum. Its type hints then stand for the GraphQL enum.
        description: The description of the GraphQL enum.
        values: The description of each member, in the order that the schema shows.

    Raises:
        ValueError: a member has no description.
    """
    if set(values) != set(enum_type):
        raise ValueError(f"{enum_type.__name__}: each member needs a description")
    strawberry.enum(enum_type, description=description)
    definition: StrawberryEnumDefinition = enum_type.__strawberry_definition__  # type: ignore[attr-defined]
    by_name = {value.name: value for value in definition.values}
    for member, text in values.items():
        by_name[member.name].description = text
    definition.values = [by_name[member.name] for member in values]
