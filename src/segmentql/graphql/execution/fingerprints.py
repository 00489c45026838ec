"""Fingerprints of a mutation's name and coerced input.

Inputs with the same meaning have the same fingerprint. So a field that is null or has its default
value counts as absent, except a field with the metadata `NULL_CLEARS`. A new optional field in a
later version changes no fingerprint.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from strawberry.types.field import StrawberryField

from graphql import (
    GraphQLArgument,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    Undefined,
)
from segmentql.graphql.execution.input_coercion import DEFINITION
from segmentql.graphql.types.validation import NULL_CLEARS

_ABSENT: Final = object()


def fingerprint(name: str, field: GraphQLField, arguments: Mapping[str, Any]) -> bytes:
    """Return the SHA-256 of a field's name and arguments.

    Args:
        name: The name of the field in the schema.
        field: The definition of the field.
        arguments: The arguments as graphql-core coerces them.
    """
    canonical = [name, _canonical_fields(field.args, arguments)]
    return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).digest()


def _canonical_fields(
    fields: Mapping[str, GraphQLArgument] | Mapping[str, GraphQLInputField],
    values: Mapping[str, Any],
) -> dict[str, Any]:
    canonical = {
        name: _canonical_field(field, values[field.out_name or name])
        for name, field in fields.items()
        if (field.out_name or name) in values
    }
    return {name: value for name, value in canonical.items() if value is not _ABSENT}


def _canonical_field(field: GraphQLArgument | GraphQLInputField, value: Any) -> Any:
    canonical = _canonical(field.type, value)
    if canonical is None:
        return None if _null_clears(field) else _ABSENT
    if field.default_value is Undefined:
        return canonical
    return _ABSENT if canonical == _canonical(field.type, field.default_value) else canonical


def _null_clears(field: GraphQLArgument | GraphQLInputField) -> bool:
    definition = field.extensions.get(DEFINITION)
    metadata = definition.metadata if isinstance(definition, StrawberryField) else {}
    return any(key in metadata for key in NULL_CLEARS)


def _canonical(input_type: GraphQLInputType, value: Any) -> Any:
    """Return a coerced value as JSON."""
    if isinstance(input_type, GraphQLNonNull):
        return _canonical(input_type.of_type, value)
    if value is None:
        return None
    if isinstance(input_type, GraphQLList):
        return [_canonical(input_type.of_type, item) for item in value]
    if isinstance(input_type, GraphQLInputObjectType):
        return _canonical_fields(input_type.fields, value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return getattr(value, "name", value)  # the name of an enum value
