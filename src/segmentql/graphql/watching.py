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


class _Waits(Protocol):
    def done(self) -> bool: ...

    def set_exception(self, error: Exception, /) -> None: ...


def fail(waiting: Sequence[_Waits], error: Exception) -> None:
    """Tell a fault to all who still wait."""
    for one in waiting:
        if not one.done():
            one.set_exception(error)


class Watcher(ABC, Generic[K, V]):
    """Answers each key once it has an answer; a subclass says how one look is read."""

    look_seconds: ClassVar[float] = 0.03
    """The pause between two looks: how late an answer may be, and what waiting costs."""

    def __init__(self, database: Database, *, primary: bool) -> None:
        self._database = database
        self._primary = primary
        self._waiting: dict[K, list[asyncio.Future[V]]] = {}
        self._watching: asyncio.Task[None] | None = None

    @abstractmethod
    async def look(self, session: ReadSession, keys: Sequence[K]) -> Mapping[K, V]:
        """The answers that there are by now, in one statement; `keys` are distinct."""

    def wait(self, key: K) -> asyncio.Future[V]:
        """The answer to come; cancelling the future ends the wait."""
        future: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(future)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        return future

    async def _watch(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(self.look_seconds)
                self._forget_who_left()
                # What cannot be read now can be at a later look; whoever waits knows how long.
                with contextlib.suppress(Unavailable, TimedOut):
                    await self._look_once()
        except Exception as fault:  # noqa: BLE001 - told to everybody who waits
            for futures in self._waiting.values():
                fail(futures, fault)
            self._waiting.clear()
        finally:
            self._watching = None

    def _forget_who_left(self) -> None:
        for key, futures in list(self._waiting.items()):
            self._waiting[key] = [future for future in futures if not future.done()]
            if not self._waiting[key]:
                del self._waiting[key]

    async def _look_once(self) -> None:
        keys = list(self._waiting)
        if not keys:
            return
        found = await self._database.read_one(
            lambda session: self.look(session, keys), primary=self._primary
        )
        for key, answer in found.items():
            for future in self._waiting.pop(key):
                if not future.done():
                    future.set_result(answer)
