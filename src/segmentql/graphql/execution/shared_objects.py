"""Objects that many responses share, such as segments, whose fields a plan writes only once.

A source is the Python object from which a plan writes the fields of a GraphQL object. A class
declares with `is_shared: ClassVar[bool] = True` that its instances are shared sources. Such a class
must be immutable, because a change of an instance would not change the responses. Equal rows should
have the same source. A selection of fields caches the written object of a shared source if all its
writers are pure. Nothing changes a written object.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from segmentql.graphql.execution.plans import ExecutionState, PlanFallback, ValueSerializer

MAX_SHARED_OBJECTS: Final = 256
"""The maximum number of written objects in the cache of a selection of fields."""

F = TypeVar("F", bound=Callable[..., Any])

_PURE: Final[WeakSet[Callable[..., Any]]] = WeakSet()
"""The writers and serializers whose result depends on nothing but the source or value."""

_WrittenObjects: TypeAlias = dict[int, tuple[object, Any, int]]
"""Sources, which keep their ids in use, with the written objects and their bytes, by the ids."""

_WRITTEN: Final[WeakKeyDictionary[Callable[..., Any], _WrittenObjects]] = WeakKeyDictionary()
"""The caches of the serializers that `cache_written_objects` returned."""


def mark_pure(function: F, *parts: Callable[..., Any]) -> F:
    """Mark a writer or serializer as pure if its parts are pure, and return it."""
    if are_pure(parts):
        _PURE.add(function)
    return function


def are_pure(functions: Iterable[Callable[..., Any]]) -> bool:
    """Return whether all writers and serializers are pure."""
    return all(function in _PURE for function in functions)


def cache_written_objects(write_object: ValueSerializer) -> ValueSerializer:
    """Return a serializer that writes the fields of a shared source only once."""
    cache: _WrittenObjects = {}

    def write_shared(value: Any, state: ExecutionState) -> Any:
        cached = cache.get(id(value))
        if cached is not None:
            state.remaining_bytes -= cached[2]
            return cached[1]
        remaining_bytes = state.remaining_bytes
        written = write_object(value, state)
        if getattr(type(value), "is_shared", False):
            if len(cache) >= MAX_SHARED_OBJECTS:
                cache.clear()
            cache[id(value)] = value, written, remaining_bytes - state.remaining_bytes
        return written

    _WRITTEN[write_shared] = cache
    return write_shared


def shared_list_serializer(serialize: ValueSerializer, item_size: int) -> ValueSerializer | None:
    """Return a serializer of a list whose items have a cache, or None if they have none.

    Args:
        serialize: The serializer of the items, perhaps one of `cache_written_objects`.
        item_size: The number of bytes that every item has.
    """
    cache = _WRITTEN.get(serialize)
    if cache is None:
        return None

    def write_shared_list(value: Any, state: ExecutionState) -> list[Any]:
        if type(value) is not list:
            raise PlanFallback
        size = item_size * len(value)
        items = []
        for item in value:
            cached = cache.get(id(item))  # inline, because most items are cached
            if cached is None:
                items.append(serialize(item, state))
            else:
                size += cached[2]
                items.append(cached[1])
        state.remaining_bytes -= size
        state.check_remaining_bytes()
        return items

    return write_shared_list
