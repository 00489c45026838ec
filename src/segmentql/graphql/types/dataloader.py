"""Loaders: one SQL statement reads the keys that all requests need in one iteration of the loop.

A loader lives as long as the process, and all requests share it. That is safe because its values
do not depend on the caller. It caches no values: a key joins only a statement that has not been
sent yet, so a load that begins after a commit sees the commit.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar, Generic, TypeVar

from segmentql import metrics
from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.errors import SegmentQLError, TimedOut
from segmentql.graphql.cost.scheduling import yield_to_event_loop
from segmentql.graphql.types.polling import Poller, fail_all
from segmentql.tracing import setup
from segmentql.tracing.calls import BatchSpans

K = TypeVar("K")
V = TypeVar("V")


class _Group(Generic[K, V]):
    """The keys of one `load_many` and the future of their values."""

    __slots__ = ("future", "keys")

    def __init__(self, keys: Sequence[K], future: asyncio.Future[list[V]]) -> None:
        self.keys = keys
        self.future = future


class _Batch(Generic[K, V]):
    """The loads of one statement: single keys with their futures, and groups."""

    __slots__ = ("groups", "singles")

    def __init__(
        self,
        singles: dict[K, list[asyncio.Future[V]]],
        groups: Sequence[_Group[K, V]],
    ) -> None:
        self.singles = singles
        self.groups = groups

    def keys(self) -> list[K]:
        """Return the keys, without repeats."""
        if not self.groups:
            return list(self.singles)
        keys = dict.fromkeys(self.singles)
        for group in self.groups:
            keys.update(dict.fromkeys(group.keys))
        return list(keys)

    def futures(self) -> set[asyncio.Future[Any]]:
        """Return the futures of all loads."""
        return {
            *(future for futures in self.singles.values() for future in futures),
            *(group.future for group in self.groups),
        }

    def halves(self) -> "Sequence[_Batch[K, V]]":
        """Return two batches with half of the loads each; none if there is only one load."""
        size = len(self.singles) + len(self.groups)
        if size == 1:
            return []
        middle = size // 2
        singles = list(self.singles.items())
        groups_in_first = max(0, middle - len(singles))
        return [
            _Batch(dict(singles[:middle]), self.groups[:groups_in_first]),
            _Batch(dict(singles[middle:]), self.groups[groups_in_first:]),
        ]


class Loader(ABC, Generic[K, V]):
    """A batched read of values by key. A subclass implements the read of one batch."""

    max_keys: ClassVar[int] = 1000
    """The maximum number of keys in one statement."""

    max_concurrent_batches: ClassVar[int] = 4
    """The maximum number of concurrent statements. Further keys wait and join a larger batch."""

    subsumes: ClassVar["type[Loader[Any, Any]] | None"] = None
    """The loader whose statement is a part of this one's, and so would time out as well."""

    def __init__(self, database: Database, *, primary: bool) -> None:
        self._database = database
        self._primary = primary
        self._waiting: dict[K, list[asyncio.Future[V]]] = {}
        self._waiting_groups: deque[_Group[K, V]] = deque()
        self._are_groups_first = False
        self._batch_keys = metrics.BATCH_KEYS.labels(type(self).__name__)
        self._batches_in_flight = 0
        self._dispatch_is_scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._spans = BatchSpans(type(self).__name__) if setup.is_on() else None

    @abstractmethod
    async def load_batch(self, session: ReadSession, keys: Sequence[K]) -> Mapping[K, V]:
        """Read one batch in one statement.

        Args:
            session: The session of the read.
            keys: The keys, without repeats; at most `max_keys`.

        Returns:
            The values by key. `on_missing` returns the value of a key that is not in it.
        """

    @abstractmethod
    def on_missing(self, key: K) -> V:
        """Return the value of a key that `load_batch` did not return, or raise its error."""

    def load(self, key: K) -> asyncio.Future[V]:
        """Return a future of one key's value. Cancelling the future withdraws the request."""
        loop = self._loop or self._running_loop()
        future: asyncio.Future[V] = loop.create_future()
        self._waiting.setdefault(key, []).append(future)
        if self._spans is not None:
            self._spans.add_current()
        self._schedule_dispatch(loop)
        return future

    def load_many(self, keys: Sequence[K]) -> asyncio.Future[list[V]]:
        """Return a future of the values of keys, in the order of the keys and with repeats.

        The future raises the first error of any key. One future serves all keys, which takes a
        tenth of the time of calling `load` for each key.
        """
        loop = self._loop or self._running_loop()
        if len(keys) > self.max_keys:
            parts = [
                self.load_many(keys[first : first + self.max_keys])
                for first in range(0, len(keys), self.max_keys)
            ]
            return loop.create_task(_concatenate(asyncio.gather(*parts)))
        future: asyncio.Future[list[V]] = loop.create_future()
        if keys:
            self._waiting_groups.append(_Group(keys, future))
            if self._spans is not None:
                self._spans.add_current()
            self._schedule_dispatch(loop)
        else:
            future.set_result([])
        return future

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        # Looked up once, because the look-up takes longer than the rest of `load`.
        self._loop = asyncio.get_running_loop()
        return self._loop

    def _schedule_dispatch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Schedule a batch of the waiting keys for the next iteration, if there is capacity."""
        if (
            (self._waiting or self._waiting_groups)
            and not self._dispatch_is_scheduled
            and self._batches_in_flight < self.max_concurrent_batches
        ):
            self._dispatch_is_scheduled = True
            self._batches_in_flight += 1
            loop.create_task(self._dispatch()).add_done_callback(self._on_dispatched)

    async def _dispatch(self) -> None:
        self._dispatch_is_scheduled = False
        batch = self._next_batch()
        keys = batch.keys()
        if self._spans is not None:
            is_last = not self._waiting and not self._waiting_groups
            self._spans.enter(len(keys), is_last=is_last)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        self._schedule_dispatch(task.get_loop())
        if keys:
            _cancel_when_abandoned(task, batch.futures())
            await self._resolve_batch(batch, keys)
        if len(keys) == self.max_keys:
            await yield_to_event_loop()

    def _next_batch(self) -> _Batch[K, V]:
        """Remove up to `max_keys` keys from the waiting loads, and return their batch."""
        # Single keys and groups come first in turn, so that none waits for ever.
        self._are_groups_first = not self._are_groups_first
        if self._are_groups_first:
            groups = self._next_groups(self.max_keys)
            singles = self._next_singles(self.max_keys - sum(len(group.keys) for group in groups))
        else:
            singles = self._next_singles(self.max_keys)
            groups = self._next_groups(self.max_keys - len(singles))
        return _Batch(singles, groups)

    def _next_singles(self, size: int) -> dict[K, list[asyncio.Future[V]]]:
        singles: dict[K, list[asyncio.Future[V]]] = {}
        for key in list(islice(self._waiting, size)):
            futures = [future for future in self._waiting.pop(key) if not future.done()]
            if futures:
                singles[key] = futures
        return singles

    def _next_groups(self, size: int) -> Sequence[_Group[K, V]]:
        groups: list[_Group[K, V]] = []
        while self._waiting_groups and len(self._waiting_groups[0].keys) <= size:
            group = self._waiting_groups.popleft()
            if not group.future.done():
                groups.append(group)
                size -= len(group.keys)
        return groups

    def _on_dispatched(self, task: asyncio.Task[None]) -> None:
        self._batches_in_flight -= 1
        self._schedule_dispatch(task.get_loop())

    async def _resolve_batch(self, batch: _Batch[K, V], keys: Sequence[K]) -> None:
        self._batch_keys.observe(len(keys))
        try:
            values = await self._database.read_one(
                lambda session: self.load_batch(session, keys), primary=self._primary
            )
        except Exception as error:  # noqa: BLE001 - raised by the futures of all loads
            # An error of one load must not fail the others, so split the batch until that load is
            # alone. An unavailable database fails all loads, and after a time-out no time is left
            # for further statements.
            if isinstance(error, TimedOut):
                error.source = self
            halves = [] if isinstance(error, SegmentQLError) else batch.halves()
            if not halves:
                fail_all(list(batch.futures()), error)
            for half in halves:
                await self._resolve_batch(half, half.keys())
            return
        for key, futures in batch.singles.items():
            try:
                value = values[key] if key in values else self.on_missing(key)
            except Exception as error:  # noqa: BLE001 - raised by this key's futures
                fail_all(futures, error)
                continue
            for future in futures:
                if not future.done():
                    future.set_result(value)
        for group in batch.groups:
            try:
                found = [
                    values[key] if key in values else self.on_missing(key) for key in group.keys
                ]
            except Exception as error:  # noqa: BLE001 - raised by the group's future
                fail_all([group.future], error)
                continue
            if not group.future.done():
                group.future.set_result(found)


async def _concatenate(parts: asyncio.Future[list[list[V]]]) -> list[V]:
    return [value for values in await parts for value in values]


def _cancel_when_abandoned(task: asyncio.Task[None], futures: set[asyncio.Future[Any]]) -> None:
    """Cancel a batch's task when all futures that wait for the batch are cancelled."""
    waiting = len(futures)

    def on_done(future: asyncio.Future[Any]) -> None:
        nonlocal waiting
        if future.cancelled():
            waiting -= 1
            if waiting == 0:
                task.cancel()

    for future in futures:
        future.add_done_callback(on_done)


L = TypeVar("L", bound=Loader | Poller)  # type: ignore[type-arg]


class LoaderRegistry:
    """The loaders and pollers of one process and one database. Each is created at its first use."""

    def __init__(self, database: Database, *, primary: bool) -> None:
        self._database = database
        self._primary = primary
        self._loaders: dict[type, object] = {}

    def get(self, loader_type: type[L]) -> L:
        """Return the loader or poller of a type; create it if there is none yet."""
        loader = self._loaders.get(loader_type)
        if loader is None:
            loader = self._loaders[loader_type] = loader_type(self._database, primary=self._primary)
        return loader  # type: ignore[return-value]
