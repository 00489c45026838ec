"""The values that an input type allows, as `extensions.allowed` describes them."""

from collections.abc import Iterable
from typing import Final

from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
)
from segmentql.graphql.execution.input_coercion import DEFINITION
from segmentql.graphql.types.scalars import BIG_INT_ALLOWED, DATE_TIME_ALLOWED

ALLOWED: Final = {
    "Int": "a whole number from -2147483648 to 2147483647",
    "Float": "a number",
    "ID": "a string or an integer, without fraction and exponent",
    "String": "a string",
    "Boolean": "true or false",
    "DateTime": DATE_TIME_ALLOWED,
    "BigInt": BIG_INT_ALLOWED,
}
"""The allowed values of the scalars."""


class AllowedValues:
    """Descriptions of the values that types allow."""

    def __init__(self, *, hide_names: bool) -> None:
        """Create the descriptions.

        Args:
            hide_names: Whether they hide the names of arguments, input fields and enum values that
                the client may not know (`SEGMENTQL_SUGGESTIONS=off`).
        """
        self._hide_names = hide_names

    def of_type(self, input_type: GraphQLInputType) -> str:
        """Return a description of the values of a type."""
        if isinstance(input_type, GraphQLNonNull):
            return self.of_type(input_type.of_type)
        if isinstance(input_type, GraphQLList):
            return f"a list; each item is {self.of_type(input_type.of_type)}"
        if isinstance(input_type, GraphQLEnumType):
            if self._hide_names:
                return f"a value of the enum {input_type.name}"
            return f"one of {', '.join(input_type.values)}"
        if isinstance(input_type, GraphQLInputObjectType):
            return f"an object with {self._quantity(input_type)} {self._fields(input_type)}"
        return ALLOWED.get(input_type.name, f"a value of the type {input_type.name}")

    def fields(self, input_type: GraphQLInputObjectType) -> str:
        """Return a description of the fields of an input object."""
        return f"the {self._fields(input_type)}"

    def arguments(self, names: Iterable[str]) -> str:
        """Return a description of the arguments of a field or directive, from their names."""
        listed = _listed(names)
        if not listed:
            return "no argument"
        return "an argument of the schema" if self._hide_names else f"the arguments {listed}"

    def _fields(self, input_type: GraphQLInputObjectType) -> str:
        if self._hide_names:
            return f"fields of {input_type.name}"
        return f"fields {_listed(input_type.fields)}"

    @staticmethod
    def _quantity(input_type: GraphQLInputObjectType) -> str:
        return "exactly one of the" if is_one_of(input_type) else "the"


def is_one_of(input_type: GraphQLInputObjectType) -> bool:
    """Return whether an input object must have exactly one field (`@oneOf`)."""
    definition = input_type.extensions.get(DEFINITION)
    return bool(definition and definition.is_one_of)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
