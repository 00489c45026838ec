"""Loaders: one SQL statement reads the keys that all requests need in one turn of the event loop.

A loader lives as long as the process, and all requests share it. That is safe because its values
do not depend on the caller. It caches no values: a key joins only a statement that has not been
sent yet, so a load that begins after a commit sees the commit.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from segmentql import metrics
from segmentql.adapters.database import Database, ReadSession
from segmentql.errors import SegmentQLError, TimedOut
from segmentql.graphql.cost.scheduling import yield_to_event_loop
from segmentql.graphql.types.polling import Poller, fail_all

K = TypeVar("K")
V = TypeVar("V")


class _BatchFuture(asyncio.Future[list[V]]):
    """A future of the values of many keys. It is done when the last value is set."""

    def __init__(self, size: int, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._values: list[V] = [None] * size  # type: ignore[list-item]
        self._missing = size

    def set_value(self, index: int, value: V) -> None:
        self._values[index] = value
        self._missing -= 1
        if self._missing == 0:
            self.set_result(self._values)


class _BatchSlot(Generic[V]):
    """One key of a `_BatchFuture`. It has the interface of a future but no callbacks."""

    __slots__ = ("_index", "batch_future")

    def __init__(self, batch_future: _BatchFuture[V], index: int) -> None:
        self.batch_future = batch_future
        self._index = index

    def done(self) -> bool:
        return self.batch_future.done()

    def set_result(self, value: V) -> None:
        self.batch_future.set_value(self._index, value)

    def set_exception(self, error: Exception) -> None:
        self.batch_future.set_exception(error)


_Waiter: TypeAlias = asyncio.Future[V] | _BatchSlot[V]


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
        self._waiting: dict[K, list[_Waiter[V]]] = {}
        self._batches_in_flight = 0
        self._dispatch_is_scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None

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
        self._schedule_dispatch(loop)
        return future

    def load_many(self, keys: Sequence[K]) -> asyncio.Future[list[V]]:
        """Return a future of the values of keys, in the order of the keys and with repeats.

        The future raises the first error of any key. This has the effect of calling `load` for
        each key and takes half the time.
        """
        loop = self._loop or self._running_loop()
        batch_future: _BatchFuture[V] = _BatchFuture(len(keys), loop=loop)
        if not keys:
            batch_future.set_result([])
        for index, key in enumerate(keys):
            self._waiting.setdefault(key, []).append(_BatchSlot(batch_future, index))
        self._schedule_dispatch(loop)
        return batch_future

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        # Looked up once, because the look-up takes longer than the rest of `load`.
        self._loop = asyncio.get_running_loop()
        return self._loop

    def _schedule_dispatch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Schedule a batch of the waiting keys for the loop's next turn, if there is capacity."""
        if (
            self._waiting
            and not self._dispatch_is_scheduled
            and self._batches_in_flight < self.max_concurrent_batches
        ):
            self._dispatch_is_scheduled = True
            self._batches_in_flight += 1
            loop.create_task(self._dispatch()).add_done_callback(self._on_dispatched)

    async def _dispatch(self) -> None:
        self._dispatch_is_scheduled = False
        batch: dict[K, list[_Waiter[V]]] = {}
        for key in list(islice(self._waiting, self.max_keys)):
            waiters = [waiter for waiter in self._waiting.pop(key) if not waiter.done()]
            if waiters:
                batch[key] = waiters
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        self._schedule_dispatch(task.get_loop())
        if batch:
            _cancel_when_abandoned(task, batch)
            await self._resolve_batch(batch)
        if len(batch) == self.max_keys:
            await yield_to_event_loop()

    def _on_dispatched(self, task: asyncio.Task[None]) -> None:
        self._batches_in_flight -= 1
        self._schedule_dispatch(task.get_loop())

    async def _resolve_batch(self, batch: Mapping[K, Sequence[_Waiter[V]]]) -> None:
        metrics.BATCH_KEYS.labels(type(self).__name__).observe(len(batch))
        try:
            values = await self._database.read_one(
                lambda session: self.load_batch(session, list(batch)), primary=self._primary
            )
        except Exception as error:  # noqa: BLE001 - raised by the futures of all waiters
            # An error of one key must not fail the others, so split the batch until that key is
            # alone. An unavailable database fails all keys, and after a time-out no time is left
            # for further statements.
            if isinstance(error, TimedOut):
                error.source = self
            if len(batch) == 1 or isinstance(error, SegmentQLError):
                for waiters in batch.values():
                    fail_all(waiters, error)
                return
            keys = list(batch)
            for half in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
                await self._resolve_batch({key: batch[key] for key in half})
            return
        for key, waiters in batch.items():
            try:
                value = values[key] if key in values else self.on_missing(key)
            except Exception as error:  # noqa: BLE001 - raised by this key's futures
                fail_all(waiters, error)
                continue
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(value)


def _cancel_when_abandoned(
    task: asyncio.Task[None], batch: Mapping[K, Sequence[_Waiter[V]]]
) -> None:
    """Cancel a batch's task when all futures that wait for the batch are cancelled."""
    futures: set[asyncio.Future[Any]] = {
        waiter.batch_future if isinstance(waiter, _BatchSlot) else waiter
        for waiters in batch.values()
        for waiter in waiters
    }
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
