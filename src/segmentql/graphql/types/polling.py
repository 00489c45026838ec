"""Watchers: whoever waits for something shares each look at the database with all who wait.

Like a loader it lives as long as the process. It looks only while somebody waits.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

from segmentql.adapters.database import Database, ReadSession
from segmentql.errors import TimedOut, Unavailable

K = TypeVar("K")
V = TypeVar("V")


class _Waiter(Protocol):
    def done(self) -> bool: ...

    def set_exception(self, error: Exception, /) -> None: ...


def fail(waiting: Sequence[_Waiter], error: Exception) -> None:
    """Tell a fault to all who still wait."""
    for one in waiting:
        if not one.done():
            one.set_exception(error)


class Poller(ABC, Generic[K, V]):
    """Answers each key once it has an answer; a subclass says how one look is read."""

    poll_interval_seconds: ClassVar[float] = 0.03
    """The pause between two looks: how late an answer may be, and what waiting costs."""

    def __init__(self, database: Database, *, primary: bool) -> None:
        self._database = database
        self._primary = primary
        self._waiting: dict[K, list[asyncio.Future[V]]] = {}
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def poll(self, session: ReadSession, keys: Sequence[K]) -> Mapping[K, V]:
        """The answers that there are by now, in one statement; `keys` are distinct."""

    def subscribe(self, key: K) -> asyncio.Future[V]:
        """The answer to come; cancelling the future ends the wait."""
        future: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(future)
        if self._task is None:
            self._task = asyncio.create_task(self._poll_until_idle())
        return future

    async def _poll_until_idle(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(self.poll_interval_seconds)
                self._drop_cancelled()
                # What cannot be read now can be at a later look; whoever waits knows how long.
                with contextlib.suppress(Unavailable, TimedOut):
                    await self._poll_once()
        except Exception as fault:  # noqa: BLE001 - told to everybody who waits
            for futures in self._waiting.values():
                fail(futures, fault)
            self._waiting.clear()
        finally:
            self._task = None

    def _drop_cancelled(self) -> None:
        for key, futures in list(self._waiting.items()):
            self._waiting[key] = [future for future in futures if not future.done()]
            if not self._waiting[key]:
                del self._waiting[key]

    async def _poll_once(self) -> None:
        keys = list(self._waiting)
        if not keys:
            return
        found = await self._database.read_one(
            lambda session: self.poll(session, keys), primary=self._primary
        )
        for key, answer in found.items():
            for future in self._waiting.pop(key):
                if not future.done():
                    future.set_result(answer)
