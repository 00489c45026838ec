"""The closures of a plan: field writers, which write fields of an object, and value serializers.

Each closure counts the bytes of the response that depend on its value. `compiler.py` adds the bytes
that every value has.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
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
from segmentql.graphql.execution.shared_objects import (
    are_pure,
    cache_written_objects,
    mark_pure,
    shared_list_serializer,
)
from segmentql.graphql.types.scalars import ID

Conditions: TypeAlias = frozenset[tuple[bool, str | bool]]
"""The conditions of `@include` and `@skip`: pairs of the required value and a variable or value."""


def if_conditions(conditions: Conditions, write: FieldWriter) -> FieldWriter:
    """Return a writer that writes the field only if all conditions are met."""
    if not conditions:
        return write

    def write_if(source: Any, into: dict[str, Any], state: ExecutionState) -> None:
        for required, operand in conditions:
            value = operand if isinstance(operand, bool) else state.variables.coerced[operand]
            if value is None:
                raise PlanFallback
            if value is not required:
                return
        write(source, into, state)

    return write_if


def count_bytes(write: FieldWriter, size: int) -> FieldWriter:
    """Return a writer that also counts `size` bytes, which every value of the field has."""

    def write_counted(source: Any, into: dict[str, Any], state: ExecutionState) -> None:
        state.remaining_bytes -= size
        write(source, into, state)

    return write_counted


def constant(key: str, value: object) -> FieldWriter:
    """Return a writer of a constant."""

    def write(source: Any, into: dict[str, Any], state: ExecutionState) -> None:
        into[key] = value

    return mark_pure(write)


def from_source(key: str, serialize: ValueSerializer) -> FieldWriter:
    """Return a writer of the source itself."""

    def write(source: Any, into: dict[str, Any], state: ExecutionState) -> None:
        into[key] = serialize(source, state)

    return write


def attribute(key: str, name: str, serialize: ValueSerializer) -> FieldWriter:
    """Return a writer of an attribute of the source."""

    def write(source: Any, into: dict[str, Any], state: ExecutionState) -> None:
        into[key] = serialize(getattr(source, name), state)

    return mark_pure(write, serialize)


def text_attribute(key: str, name: str, serialize: ValueSerializer) -> FieldWriter:
    """Return a writer of a text attribute. It copies strings inline: most values are strings."""

    def write(source: Any, into: dict[str, Any], state: ExecutionState) -> None:
        value = getattr(source, name)
        if type(value) is str:
            state.remaining_bytes -= len(value)
            into[key] = value
        else:
            into[key] = serialize(value, state)

    return mark_pure(write, serialize)


def resolved(
    key: str,
    definition: StrawberryField,
    arguments: Arguments,
    serialize: ValueSerializer,
    selected_fields: frozenset[str],
) -> FieldWriter:
    """Return a writer of the result of a resolver.

    Args:
        key: The field's name in the response.
        definition: The field, with its resolver.
        arguments: The function that returns the resolver's arguments.
        serialize: The serializer of the result.
        selected_fields: The selected fields of the result that have no arguments.
    """
    resolver = definition.base_resolver
    if resolver is None or definition.extensions or definition.permission_classes:
        raise NotCompilable
    function: Callable[..., Any] = resolver.wrapped_func  # type: ignore[assignment]
    wants_info = resolver.info_parameter is not None

    def write(source: Any, into: dict[str, Any], state: ExecutionState) -> None:
        values = arguments(state.variables)
        value = (
            function(source, info=state.info(selected_fields), **values)
            if wants_info
            else function(source, **values)
        )
        if type(value) is not list and isinstance(value, Awaitable):  # the second check is slow
            into[key] = None  # keeps the order of the fields
            state.pending.append(PendingField(asyncio.ensure_future(value), into, key, serialize))
        else:
            into[key] = serialize(value, state)

    return write if wants_info or definition.arguments else mark_pure(write, serialize)


def empty_list(value: Any, state: ExecutionState) -> list[Any]:
    """Serialize a list of an interface if it is empty, as most mutations' `errors` are."""
    if value != []:
        raise PlanFallback
    return []


def nullable(serialize: ValueSerializer, extra_bytes: int) -> ValueSerializer:
    """Return a serializer that accepts None; `extra_bytes` counts the other values' extra bytes."""
    if extra_bytes <= 0:
        return mark_pure(
            lambda value, state: None if value is None else serialize(value, state), serialize
        )

    def write_nullable(value: Any, state: ExecutionState) -> Any:
        if value is None:
            return None
        state.remaining_bytes -= extra_bytes
        return serialize(value, state)

    return mark_pure(write_nullable, serialize)


def list_of(serialize: ValueSerializer, item_size: int) -> ValueSerializer:
    """Return a serializer of a list, which counts `item_size` bytes for each item."""

    def write_list(value: Any, state: ExecutionState) -> list[Any]:
        if type(value) is not list:
            raise PlanFallback
        state.remaining_bytes -= item_size * len(value)
        state.check_remaining_bytes()
        return [serialize(item, state) for item in value]

    return shared_list_serializer(serialize, item_size) or write_list


def object_of(writers: Sequence[FieldWriter]) -> ValueSerializer:
    """Return a serializer of an object, whose fields the writers write."""

    def write_object(value: Any, state: ExecutionState) -> dict[str, Any]:
        if value is None:
            raise PlanFallback
        into: dict[str, Any] = {}
        for write in writers:
            write(value, into, state)
        return into

    return cache_written_objects(write_object) if are_pure(writers) else write_object


def instance_of(serializers: Mapping[type, tuple[ValueSerializer, int]]) -> ValueSerializer:
    """Return a serializer of a value of an interface.

    Args:
        serializers: The serializers by the class of the value, and the bytes that each adds to the
            bytes of the interface's shortest value.
    """

    def write_instance(value: Any, state: ExecutionState) -> dict[str, Any]:
        found = serializers.get(type(value))
        if found is None:
            raise PlanFallback
        serialize, extra_bytes = found
        state.remaining_bytes -= extra_bytes
        written: dict[str, Any] = serialize(value, state)
        return written

    return write_instance


def is_text(return_type: GraphQLOutputType) -> bool:
    """Return whether a type is String or ID, nullable or not."""
    return (return_type.of_type if isinstance(return_type, GraphQLNonNull) else return_type) in {
        GraphQLString,
        ID,
    }


def text(return_type: GraphQLScalarType) -> ValueSerializer:
    """Return a serializer of String or ID."""

    def write_text(value: Any, state: ExecutionState) -> Any:
        text = value if type(value) is str else _serialize_leaf(return_type, value)
        state.remaining_bytes -= len(text)
        return text

    return mark_pure(write_text)


def leaf(return_type: GraphQLScalarType | GraphQLEnumType) -> ValueSerializer:
    """Return a serializer of another scalar or of an enum."""
    return mark_pure(lambda value, state: _serialize_leaf(return_type, value))


def _serialize_leaf(return_type: GraphQLScalarType | GraphQLEnumType, value: Any) -> Any:
    output = return_type.coerce_output_value(value)
    if output is None or output is Undefined:
        raise PlanFallback
    return output
