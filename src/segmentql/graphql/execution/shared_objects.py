"""Objects that many responses share, such as segments, whose fields a plan writes only once.

A source is shared if its attribute `is_shared` is true: it is immutable and small, and equal rows
have the same source. A selection of fields keeps the written object of a shared source if all its
writers are pure. Nothing changes a written object.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from segmentql.graphql.execution.plans import ExecutionState, PlanFallback, ValueSerializer

MAX_SHARED_OBJECTS: Final = 256
"""The number of written objects that a selection of fields keeps."""

MAX_OBJECT_BYTES: Final = 1_500
"""The size of the largest written object that is kept: its counted bytes and `FIELD_BYTES` for each
field. With its source it takes at most about 7 KB of memory."""

FIELD_BYTES: Final = 50
"""The size of the name and the value of a field without the bytes that are counted."""

MAX_SHARED_OBJECTS_OF_PROCESS: Final = 2_048
"""The number of written objects that all selections together keep. So they take at most about
15 MB, and usually less than 5 MB."""

F = TypeVar("F", bound=Callable[..., Any])

_PURE: Final[WeakSet[Callable[..., Any]]] = WeakSet()
"""The writers and serializers whose result depends on nothing but the source or value."""

_Kept: TypeAlias = dict[int, tuple[object, Any, int]]
"""Sources, which keep their ids in use, with the written objects and their bytes, by the ids."""

_KEPT: Final[WeakKeyDictionary[Callable[..., Any], _Kept]] = WeakKeyDictionary()
"""The written objects that a serializer keeps."""


_kept_count = 0
"""An upper bound of the number of kept objects."""


def _keep(kept: _Kept, value: object, written: Any, size: int) -> None:
    """Keep a written object. If its selection, or the process, keeps too many, drop them all."""
    global _kept_count  # noqa: PLW0603 - the process has one event loop
    if _kept_count >= MAX_SHARED_OBJECTS_OF_PROCESS:
        for other in _KEPT.values():
            other.clear()
        _kept_count = 0
    if len(kept) >= MAX_SHARED_OBJECTS:
        kept.clear()
    kept[id(value)] = value, written, size
    _kept_count += 1


def pure(function: F, *parts: Callable[..., Any]) -> F:
    """Mark a writer or serializer as pure if its parts are pure, and return it."""
    if are_pure(parts):
        _PURE.add(function)
    return function


def are_pure(functions: Iterable[Callable[..., Any]]) -> bool:
    """Return whether all writers and serializers are pure."""
    return all(function in _PURE for function in functions)


def keep_shared(write_object: ValueSerializer) -> ValueSerializer:
    """Return a serializer that writes the fields of a shared source only once."""
    kept: _Kept = {}

    def write_shared(value: Any, state: ExecutionState) -> Any:
        found = kept.get(id(value))
        if found is not None:
            state.remaining_bytes -= found[2]
            return found[1]
        remaining_bytes = state.remaining_bytes
        written = write_object(value, state)
        if getattr(value, "is_shared", False):
            size = remaining_bytes - state.remaining_bytes
            if size + FIELD_BYTES * len(written) <= MAX_OBJECT_BYTES:
                _keep(kept, value, written, size)
        return written

    _KEPT[write_shared] = kept
    return write_shared


def list_of_shared(serialize: ValueSerializer, item_size: int) -> ValueSerializer | None:
    """Return a serializer of a list, or None if the items are not serialized by `keep_shared`.

    Args:
        serialize: The serializer of the items.
        item_size: The number of bytes that every item has.
    """
    kept = _KEPT.get(serialize)
    if kept is None:
        return None

    def write_shared_list(value: Any, state: ExecutionState) -> list[Any]:
        if type(value) is not list:
            raise PlanFallback
        size = item_size * len(value)
        items = []
        for item in value:
            found = kept.get(id(item))  # inline, because most items are found
            if found is None:
                items.append(serialize(item, state))
            else:
                size += found[2]
                items.append(found[1])
        state.remaining_bytes -= size
        state.check_remaining_bytes()
        return items

    return write_shared_list
