"""Loaders: what all requests in flight ask for in one turn of the event loop is one statement.

A loader lives as long as the process and is shared by every request, which is safe because an
answer does not depend on who asks. It keeps no answers: a key joins only a statement that has not
been sent yet, so whoever asks after a commit sees it.
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
from segmentql.graphql.types.polling import Poller, fail

K = TypeVar("K")
V = TypeVar("V")


class _BatchFuture(asyncio.Future[list[V]]):
    """The answers to many keys, when the last of them has come."""

    def __init__(self, size: int, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._values: list[V] = [None] * size  # type: ignore[list-item]
        self._missing = size

    def set_value(self, number: int, answer: V) -> None:
        self._values[number] = answer
        self._missing -= 1
        if self._missing == 0:
            self.set_result(self._values)


class _BatchSlot(Generic[V]):
    """One key's among many; to whoever answers it is as good as a future, and costs no callback."""

    __slots__ = ("_number", "batch_future")

    def __init__(self, batch_future: _BatchFuture[V], number: int) -> None:
        self.batch_future = batch_future
        self._number = number

    def done(self) -> bool:
        return self.batch_future.done()

    def set_result(self, answer: V) -> None:
        self.batch_future.set_value(self._number, answer)

    def set_exception(self, error: Exception) -> None:
        self.batch_future.set_exception(error)


_Waiter: TypeAlias = asyncio.Future[V] | _BatchSlot[V]


class Loader(ABC, Generic[K, V]):
    """Answers keys in batches; a subclass says how one batch is read."""

    max_keys: ClassVar[int] = 1000
    """Keys in one statement."""

    max_concurrent_batches: ClassVar[int] = 4
    """Statements at a time; further keys wait and make a larger batch."""

    subsumes: ClassVar["type[Loader[Any, Any]] | None"] = None
    """Whose statement is a part of this one's: where this times out, that one would as well."""

    def __init__(self, database: Database, *, primary: bool) -> None:
        self._database = database
        self._primary = primary
        self._waiting: dict[K, list[_Waiter[V]]] = {}
        self._batches_in_flight = 0
        self._dispatch_is_scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @abstractmethod
    async def load_batch(self, session: ReadSession, keys: Sequence[K]) -> Mapping[K, V]:
        """Read one batch, in one statement; `keys` are distinct.

        A key may be left out: then `on_missing` is its answer.
        """

    @abstractmethod
    def on_missing(self, key: K) -> V:
        """Answer (or raise) for a key that `load_batch` left out."""

    def load(self, key: K) -> asyncio.Future[V]:
        """Ask for one key's answer; cancelling the future takes this wish back."""
        loop = self._loop or self._running_loop()
        future: asyncio.Future[V] = loop.create_future()
        self._waiting.setdefault(key, []).append(future)
        self._schedule_dispatch(loop)
        return future

    def load_many(self, keys: Sequence[K]) -> asyncio.Future[list[V]]:
        """Ask for the answers to keys, in their order and with repeats.

        The first that fails is raised. It does what `load` of each does, at half the cost.
        """
        loop = self._loop or self._running_loop()
        batch_future: _BatchFuture[V] = _BatchFuture(len(keys), loop=loop)
        if not keys:
            batch_future.set_result([])
        for number, key in enumerate(keys):
            self._waiting.setdefault(key, []).append(_BatchSlot(batch_future, number))
        self._schedule_dispatch(loop)
        return batch_future

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        # Asked for once: that costs more than all the rest.
        self._loop = asyncio.get_running_loop()
        return self._loop

    def _schedule_dispatch(self, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that in the loop's next turn a batch is made of what waits by then."""
        if (
            self._waiting
            and not self._dispatch_is_scheduled
            and self._batches_in_flight < self.max_concurrent_batches
        ):
            self._dispatch_is_scheduled = True
            self._batches_in_flight += 1
            loop.create_task(self._dispatch()).add_done_callback(self._dispatched)

    async def _dispatch(self) -> None:
        self._dispatch_is_scheduled = False
        batch: dict[K, list[_Waiter[V]]] = {}
        for key in list(islice(self._waiting, self.max_keys)):
            waiters = [waiter for waiter in self._waiting.pop(key) if not waiter.done()]
            if waiters:
                batch[key] = waiters
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is one
        self._schedule_dispatch(task.get_loop())
        if batch:
            _cancel_when_abandoned(task, batch)
            await self._resolve_batch(batch)
        if len(batch) == self.max_keys:
            await yield_to_event_loop()

    def _dispatched(self, task: asyncio.Task[None]) -> None:
        self._batches_in_flight -= 1
        self._schedule_dispatch(task.get_loop())

    async def _resolve_batch(self, batch: Mapping[K, Sequence[_Waiter[V]]]) -> None:
        metrics.BATCH_KEYS.labels(type(self).__name__).observe(len(batch))
        try:
            found = await self._database.read_one(
                lambda session: self.load_batch(session, list(batch)), primary=self._primary
            )
        except Exception as error:  # noqa: BLE001 - told to everybody who waits
            # What is wrong with one key must not fail the others: halve until it is alone. But a
            # database that is away is away for all, and after a time-out nobody has time left.
            if isinstance(error, TimedOut):
                error.source = self
            if len(batch) == 1 or isinstance(error, SegmentQLError):
                for waiters in batch.values():
                    fail(waiters, error)
                return
            keys = list(batch)
            for half in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
                await self._resolve_batch({key: batch[key] for key in half})
            return
        for key, waiters in batch.items():
            try:
                value = found[key] if key in found else self.on_missing(key)
            except Exception as error:  # noqa: BLE001 - told to those who asked for this key
                fail(waiters, error)
                continue
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(value)


def _cancel_when_abandoned(
    task: asyncio.Task[None], batch: Mapping[K, Sequence[_Waiter[V]]]
) -> None:
    futures: set[asyncio.Future[Any]] = {
        waiter.batch_future if isinstance(waiter, _BatchSlot) else waiter
        for waiters in batch.values()
        for waiter in waiters
    }
    waiting = len(futures)

    def given_up(future: asyncio.Future[Any]) -> None:
        nonlocal waiting
        if future.cancelled():
            waiting -= 1
            if waiting == 0:
                task.cancel()

    for future in futures:
        future.add_done_callback(given_up)


L = TypeVar("L", bound=Loader | Poller)  # type: ignore[type-arg]


class LoaderRegistry:
    """The process' loaders and watchers of one database, each made when first asked for."""

    def __init__(self, database: Database, *, primary: bool) -> None:
        self._database = database
        self._primary = primary
        self._loaders: dict[type, object] = {}

    def get(self, kind: type[L]) -> L:
        loader = self._loaders.get(kind)
        if loader is None:
            loader = self._loaders[kind] = kind(self._database, primary=self._primary)
        return loader  # type: ignore[return-value]
