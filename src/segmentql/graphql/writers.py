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
from segmentql.graphql.inputs import Arguments, Unplanned
from segmentql.graphql.plans import Fill, PlanFailed, Run, Waiting, Write
from segmentql.graphql.scalars import ID

Conditions: TypeAlias = frozenset[tuple[bool, str | bool]]
"""What `@include` and `@skip` ask of a field: what must be true or false, a variable or a value."""


def if_conditions(conditions: Conditions, fill: Fill) -> Fill:
    """Fill where all of the conditions are met."""
    if not conditions:
        return fill

    def fill_if(source: Any, into: dict[str, Any], run: Run) -> None:
        for wanted, given in conditions:
            value = given if isinstance(given, bool) else run.variables.coerced[given]
            if value is None:
                raise PlanFailed
            if value is not wanted:
                return
        fill(source, into, run)

    return fill_if


def counted(fill: Fill, size: int) -> Fill:
    """Fill, and count the bytes that the value has in any case."""

    def fill_counted(source: Any, into: dict[str, Any], run: Run) -> None:
        run.room -= size
        fill(source, into, run)

    return fill_counted


def constant(key: str, value: object) -> Fill:
    def fill(source: Any, into: dict[str, Any], run: Run) -> None:
        into[key] = value

    return fill


def from_source(key: str, write: Write) -> Fill:
    def fill(source: Any, into: dict[str, Any], run: Run) -> None:
        into[key] = write(source, run)

    return fill


def attribute(key: str, name: str, write: Write) -> Fill:
    def fill(source: Any, into: dict[str, Any], run: Run) -> None:
        into[key] = write(getattr(source, name), run)

    return fill


def text_attribute(key: str, name: str, write: Write) -> Fill:
    """As `attribute` does, without a call for a string: most values are some."""

    def fill(source: Any, into: dict[str, Any], run: Run) -> None:
        value = getattr(source, name)
        if type(value) is str:
            run.room -= len(value)
            into[key] = value
        else:
            into[key] = write(value, run)

    return fill


def resolved(
    key: str,
    definition: StrawberryField,
    arguments: Arguments,
    write: Write,
    below: frozenset[str],
) -> Fill:
    resolver = definition.base_resolver
    if resolver is None or definition.extensions or definition.permission_classes:
        raise Unplanned
    function: Callable[..., Any] = resolver.wrapped_func  # type: ignore[assignment]
    wants_info = resolver.info_parameter is not None

    def fill(source: Any, into: dict[str, Any], run: Run) -> None:
        given = arguments(run.variables)
        value = (
            function(source, info=run.info(below), **given)
            if wants_info
            else function(source, **given)
        )
        if isinstance(value, Awaitable):
            into[key] = None  # keeps the field's place
            run.waiting.append(Waiting(asyncio.ensure_future(value), into, key, write))
        else:
            into[key] = write(value, run)

    return fill


def no_list(value: Any, run: Run) -> list[Any]:
    """A list of an interface, where it is empty: a change's errors, most of the time."""
    if value != []:
        raise PlanFailed
    return []


def nullable(write: Write, beyond_null: int) -> Write:
    if beyond_null <= 0:
        return lambda value, run: None if value is None else write(value, run)

    def write_nullable(value: Any, run: Run) -> Any:
        if value is None:
            return None
        run.room -= beyond_null
        return write(value, run)

    return write_nullable


def list_of(write: Write, item_size: int) -> Write:
    def write_list(value: Any, run: Run) -> list[Any]:
        if type(value) is not list:
            raise PlanFailed
        run.room -= item_size * len(value)
        run.check_room()
        return [write(item, run) for item in value]

    return write_list


def object_of(fields: Sequence[Fill]) -> Write:
    def write_object(value: Any, run: Run) -> dict[str, Any]:
        if value is None:
            raise PlanFailed
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


def text(kind: GraphQLScalarType) -> Write:
    def write_text(value: Any, run: Run) -> Any:
        text = value if type(value) is str else _written(kind, value)
        run.room -= len(text)
        return text

    return write_text


def leaf(kind: GraphQLScalarType | GraphQLEnumType) -> Write:
    return lambda value, run: _written(kind, value)


def _written(kind: GraphQLScalarType | GraphQLEnumType, value: Any) -> Any:
    written = kind.coerce_output_value(value)
    if written is None or written is Undefined:
        raise PlanFailed
    return written
