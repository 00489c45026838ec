"""Payloads of mutations as stored results, which have ids and counts, and back.

A retry returns the first result's ids and counts, with the entities as they are now. So a stored
result has the ids of entities, never their values, and no secret. Each feature registers
the records of its entities with `register_entity`, and other records with `register_value`.
"""

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

import strawberry
from strawberry.types.base import StrawberryContainer, StrawberryObjectDefinition
from strawberry.types.field import StrawberryField

from segmentql.graphql.context import Context
from segmentql.graphql.types.idempotency import StoredResult

P = TypeVar("P")
V = TypeVar("V")
K = TypeVar("K")

NOT_STORED: Final = {"segmentql.not_stored": True}
"""The `metadata` of a payload's field that a retry does not return: a secret, or what
the resolver adds after the transaction."""

_UNKNOWN: Final = object()
"""Stands for a stored record that this version does not know."""

_Decode = Callable[[Context, Any], Awaitable[Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of record in stored results."""

    name: str
    encode: Callable[[Any], Any]
    decode: _Decode


_KIND_OF_RECORD: Final[dict[type, _Kind]] = {}
_KIND_BY_NAME: Final[dict[str, _Kind]] = {}


def register_entity(
    record: type[V],
    name: str,
    key_of: Callable[[V], K],
    load: Callable[[Context, K], Awaitable[V | None]],
) -> None:
    """Register the records of an entity, of which results store the key only.

    Args:
        record: The class of the records.
        name: The name of the entity in stored results, which never changes.
        key_of: Returns the key of a record.
        load: Returns the record with a key as it is now; None if the entity does not exist any
            more.
    """
    _register(record, _Kind(name, key_of, load))


def register_value(
    record: type[V], name: str, encode: Callable[[V], Any], decode: Callable[[Any], V]
) -> None:
    """Register records that have counts only, which results store as JSON.

    Args:
        record: The class of the records.
        name: The name of the records in stored results, which never changes.
        encode: Returns a record as JSON.
        decode: Returns the record of such JSON.
    """

    async def decode_value(context: Context, value: Any) -> V | object:
        try:
            return decode(value)
        except (LookupError, TypeError, ValueError):  # another version has stored it
            return _UNKNOWN

    _register(record, _Kind(name, encode, decode_value))


def _register(record: type, kind: _Kind) -> None:
    assert kind.name not in _KIND_BY_NAME  # noqa: S101 - a mistake in the code
    _KIND_OF_RECORD[record] = _KIND_BY_NAME[kind.name] = kind


def encode_payload(payload: object) -> StoredResult:
    """Return the ids and counts of a payload without errors.

    Raises:
        TypeError: A field of the payload has a value that is neither an id nor a count, nor a
            registered record. Such a field needs the metadata `NOT_STORED`.
    """
    definition = cast("Any", payload).__strawberry_definition__
    assert isinstance(definition, StrawberryObjectDefinition)  # noqa: S101 - it is a payload
    return {
        field.python_name: _encode(field, getattr(payload, field.python_name))
        for field in definition.fields
        if field.python_name != "errors" and not _is_not_stored(field)
    }


def _is_not_stored(field: StrawberryField) -> bool:
    return any(key in (field.metadata or {}) for key in NOT_STORED)


def _encode(field: StrawberryField, value: Any) -> Any:
    if isinstance(value, list):
        return [_encode(field, item) for item in value]
    if value is None or type(value) is int or (type(value) is str and _is_id(field)):
        return value
    kind = _KIND_OF_RECORD.get(type(value))
    if kind is None:
        raise TypeError(f"{field.python_name}: {type(value).__name__} cannot be stored")
    return {kind.name: kind.encode(value)}


def _is_id(field: StrawberryField) -> bool:
    declared = field.type
    while isinstance(declared, StrawberryContainer):
        declared = declared.of_type
    return declared is strawberry.ID


async def decode_payload(payload: Callable[..., P], context: Context, stored: StoredResult) -> P:
    """Return the payload of a stored result, with the entities as they are now.

    An entity that does not exist any more is None. During an upgrade, a process of another version
    may have stored the result: what this version does not know is omitted, and missing fields have
    their default values.
    """
    definition = cast("Any", payload).__strawberry_definition__
    assert isinstance(definition, StrawberryObjectDefinition)  # noqa: S101 - it is a payload
    names = {field.python_name for field in definition.fields}
    values = {
        name: await _decode(context, value) for name, value in stored.items() if name in names
    }
    return payload(**{name: value for name, value in values.items() if value is not _UNKNOWN})


async def _decode(context: Context, value: Any) -> Any:
    if isinstance(value, list):
        items = [await _decode(context, item) for item in value]
        return [item for item in items if item is not _UNKNOWN]
    if isinstance(value, dict):
        name, encoded = next(iter(value.items()))
        kind = _KIND_BY_NAME.get(name)
        return await kind.decode(context, encoded) if kind else _UNKNOWN
    return value
