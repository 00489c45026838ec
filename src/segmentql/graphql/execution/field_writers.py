"""What a plan is made of: closures that fill an object's fields and write values.

Each counts the bytes of the response that depend on the value; `compiler.py` knows the others.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from strawberry.types.field import StrawberryField

from graphql import (
    GraphQLEnumType,
    GraphQLNonNull,
    GraphQLOutputType,
    GraphQLScalarType,
    GraphQLString,
    Undefined,
)
from segmentql.graphql.execution.input_coercion import Arguments, NotCompilable
from segmentql.graphql.execution.plans import (
    ExecutionState,
    FieldWriter,
    PendingField,
    PlanFallback,
    ValueSerializer,
)
from segmentql.graphql.types.scalars import ID

Conditions: TypeAlias = frozenset[tuple[bool, str | bool]]
"""What `@include` and `@skip` ask of a field: what must be true or false, a variable or a value."""


def if_conditions(conditions: Conditions, fill: FieldWriter) -> FieldWriter:
    """Fill where all of the conditions are met."""
    if not conditions:
        return fill

    def fill_if(source: Any, into: dict[str, Any], run: ExecutionState) -> None:
        for wanted, given in conditions:
            value = given if isinstance(given, bool) else run.variables.coerced[given]
            if value is None:
                raise PlanFallback
            if value is not wanted:
                return
        fill(source, into, run)

    return fill_if


def count_bytes(fill: FieldWriter, size: int) -> FieldWriter:
    """Fill, and count the bytes that the value has in any case."""

    def fill_counted(source: Any, into: dict[str, Any], run: ExecutionState) -> None:
        run.remaining_bytes -= size
        fill(source, into, run)

    return fill_counted


def constant(key: str, value: object) -> FieldWriter:
    def fill(source: Any, into: dict[str, Any], run: ExecutionState) -> None:
        into[key] = value

    return fill


def from_source(key: str, serialize: ValueSerializer) -> FieldWriter:
    def fill(source: Any, into: dict[str, Any], run: ExecutionState) -> None:
        into[key] = serialize(source, run)

    return fill


def attribute(key: str, name: str, serialize: ValueSerializer) -> FieldWriter:
    def fill(source: Any, into: dict[str, Any], run: ExecutionState) -> None:
        into[key] = serialize(getattr(source, name), run)

    return fill


def text_attribute(key: str, name: str, serialize: ValueSerializer) -> FieldWriter:
    """As `attribute` does, without a call for a string: most values are some."""

    def fill(source: Any, into: dict[str, Any], run: ExecutionState) -> None:
        value = getattr(source, name)
        if type(value) is str:
            run.remaining_bytes -= len(value)
            into[key] = value
        else:
            into[key] = serialize(value, run)

    return fill


def resolved(
    key: str,
    definition: StrawberryField,
    arguments: Arguments,
    serialize: ValueSerializer,
    selected_fields: frozenset[str],
) -> FieldWriter:
    resolver = definition.base_resolver
    if resolver is None or definition.extensions or definition.permission_classes:
        raise NotCompilable
    function: Callable[..., Any] = resolver.wrapped_func  # type: ignore[assignment]
    wants_info = resolver.info_parameter is not None

    def fill(source: Any, into: dict[str, Any], run: ExecutionState) -> None:
        given = arguments(run.variables)
        value = (
            function(source, info=run.info(selected_fields), **given)
            if wants_info
            else function(source, **given)
        )
        if isinstance(value, Awaitable):
            into[key] = None  # keeps the field's place
            run.pending.append(PendingField(asyncio.ensure_future(value), into, key, serialize))
        else:
            into[key] = serialize(value, run)

    return fill


def empty_list(value: Any, run: ExecutionState) -> list[Any]:
    """A list of an interface, where it is empty: a change's errors, most of the time."""
    if value != []:
        raise PlanFallback
    return []


def nullable(serialize: ValueSerializer, beyond_null: int) -> ValueSerializer:
    if beyond_null <= 0:
        return lambda value, run: None if value is None else serialize(value, run)

    def write_nullable(value: Any, run: ExecutionState) -> Any:
        if value is None:
            return None
        run.remaining_bytes -= beyond_null
        return serialize(value, run)

    return write_nullable


def list_of(serialize: ValueSerializer, item_size: int) -> ValueSerializer:
    def write_list(value: Any, run: ExecutionState) -> list[Any]:
        if type(value) is not list:
            raise PlanFallback
        run.remaining_bytes -= item_size * len(value)
        run.check_remaining_bytes()
        return [serialize(item, run) for item in value]

    return write_list


def object_of(fields: Sequence[FieldWriter]) -> ValueSerializer:
    def write_object(value: Any, run: ExecutionState) -> dict[str, Any]:
        if value is None:
            raise PlanFallback
        into: dict[str, Any] = {}
        for fill in fields:
            fill(value, into, run)
        return into

    return write_object


def is_text(kind: GraphQLOutputType) -> bool:
    return (kind.of_type if isinstance(kind, GraphQLNonNull) else kind) in {
        GraphQLString,
        ID,
    }


def text(kind: GraphQLScalarType) -> ValueSerializer:
    def write_text(value: Any, run: ExecutionState) -> Any:
        text = value if type(value) is str else _serialize_leaf(kind, value)
        run.remaining_bytes -= len(text)
        return text

    return write_text


def leaf(kind: GraphQLScalarType | GraphQLEnumType) -> ValueSerializer:
    return lambda value, run: _serialize_leaf(kind, value)


def _serialize_leaf(kind: GraphQLScalarType | GraphQLEnumType, value: Any) -> Any:
    written = kind.coerce_output_value(value)
    if written is None or written is Undefined:
        raise PlanFallback
    return written
