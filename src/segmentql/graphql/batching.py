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
from segmentql.graphql.turns import let_others
from segmentql.graphql.watching import Watcher, fail

K = TypeVar("K")
V = TypeVar("V")


class _Many(asyncio.Future[list[V]]):
    """The answers to many keys, when the last of them has come."""

    def __init__(self, size: int, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._answers: list[V] = [None] * size  # type: ignore[list-item]
        self._left = size

    def put(self, number: int, answer: V) -> None:
        self._answers[number] = answer
        self._left -= 1
        if self._left == 0:
            self.set_result(self._answers)


class _Place(Generic[V]):
    """One key's among many; to whoever answers it is as good as a future, and costs no callback."""

    __slots__ = ("_number", "many")

    def __init__(self, many: _Many[V], number: int) -> None:
        self.many = many
        self._number = number

    def done(self) -> bool:
        return self.many.done()

    def set_result(self, answer: V) -> None:
        self.many.put(self._number, answer)

    def set_exception(self, error: Exception) -> None:
        self.many.set_exception(error)


_Wish: TypeAlias = asyncio.Future[V] | _Place[V]


class Loader(ABC, Generic[K, V]):
    """Answers keys in batches; a subclass says how one batch is read."""

    max_keys: ClassVar[int] = 1000
    """Keys in one statement."""

    max_under_way: ClassVar[int] = 4
    """Statements at a time; further keys wait and make a larger batch."""

    part: ClassVar["type[Loader[Any, Any]] | None"] = None
    """Whose statement is a part of this one's: where this times out, that one would as well."""

    def __init__(self, database: Database, *, primary: bool) -> None:
        self._database = database
        self._primary = primary
        self._waiting: dict[K, list[_Wish[V]]] = {}
        self._under_way = 0
        self._next_is_due = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @abstractmethod
    async def fetch(self, session: ReadSession, keys: Sequence[K]) -> Mapping[K, V]:
        """Read one batch, in one statement; `keys` are distinct.

        A key may be left out: then `absent` is its answer.
        """

    @abstractmethod
    def absent(self, key: K) -> V:
        """Answer (or raise) for a key that `fetch` left out."""

    def load(self, key: K) -> asyncio.Future[V]:
        """Ask for one key's answer; cancelling the future takes this wish back."""
        loop = self._loop or self._running_loop()
        future: asyncio.Future[V] = loop.create_future()
        self._waiting.setdefault(key, []).append(future)
        self._have_sent(loop)
        return future

    def load_many(self, keys: Sequence[K]) -> asyncio.Future[list[V]]:
        """Ask for the answers to keys, in their order and with repeats.

        The first that fails is raised. It does what `load` of each does, at half the cost.
        """
        loop = self._loop or self._running_loop()
        many: _Many[V] = _Many(len(keys), loop=loop)
        if not keys:
            many.set_result([])
        for number, key in enumerate(keys):
            self._waiting.setdefault(key, []).append(_Place(many, number))
        self._have_sent(loop)
        return many

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        # Asked for once: that costs more than all the rest.
        self._loop = asyncio.get_running_loop()
        return self._loop

    def _have_sent(self, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that in the loop's next turn a batch is made of what waits by then."""
        if self._waiting and not self._next_is_due and self._under_way < self.max_under_way:
            self._next_is_due = True
            self._under_way += 1
            loop.create_task(self._send()).add_done_callback(self._sent)

    async def _send(self) -> None:
        self._next_is_due = False
        batch: dict[K, list[_Wish[V]]] = {}
        for key in list(islice(self._waiting, self.max_keys)):
            wishes = [wish for wish in self._waiting.pop(key) if not wish.done()]
            if wishes:
                batch[key] = wishes
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is one
        self._have_sent(task.get_loop())
        if batch:
            _cancel_when_nobody_waits(task, batch)
            await self._answer(batch)
        if len(batch) == self.max_keys:
            await let_others()

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._under_way -= 1
        self._have_sent(task.get_loop())

    async def _answer(self, batch: Mapping[K, Sequence[_Wish[V]]]) -> None:
        metrics.BATCH_KEYS.labels(type(self).__name__).observe(len(batch))
        try:
            found = await self._database.read_one(
                lambda session: self.fetch(session, list(batch)), primary=self._primary
            )
        except Exception as error:  # noqa: BLE001 - told to everybody who waits
            # What is wrong with one key must not fail the others: halve until it is alone. But a
            # database that is away is away for all, and after a time-out nobody has time left.
            if isinstance(error, TimedOut):
                error.source = self
            if len(batch) == 1 or isinstance(error, SegmentQLError):
                for wishes in batch.values():
                    fail(wishes, error)
                return
            keys = list(batch)
            for half in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
                await self._answer({key: batch[key] for key in half})
            return
        for key, wishes in batch.items():
            try:
                value = found[key] if key in found else self.absent(key)
            except Exception as error:  # noqa: BLE001 - told to those who asked for this key
                fail(wishes, error)
                continue
            for wish in wishes:
                if not wish.done():
                    wish.set_result(value)


def _cancel_when_nobody_waits(
    task: asyncio.Task[None], batch: Mapping[K, Sequence[_Wish[V]]]
) -> None:
    futures: set[asyncio.Future[Any]] = {
        wish.many if isinstance(wish, _Place) else wish
        for wishes in batch.values()
        for wish in wishes
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


L = TypeVar("L", bound=Loader | Watcher)  # type: ignore[type-arg]


class Loaders:
    """The process' loaders and watchers of one database, each made when first asked for."""

    def __init__(self, database: Database, *, primary: bool) -> None:
        self._database = database
        self._primary = primary
        self._made: dict[type, object] = {}

    def get(self, kind: type[L]) -> L:
        loader = self._made.get(kind)
        if loader is None:
            loader = self._made[kind] = kind(self._database, primary=self._primary)
        return loader  # type: ignore[return-value]
