"""Polling: one SQL statement per interval checks the keys that all requests wait for.

A poller lives as long as the process, and all requests share it. It polls only while at least one
request waits.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.errors import TimedOut, Unavailable
from segmentql.tracing.active import leave_span

K = TypeVar("K")
V = TypeVar("V")


class _Waiter(Protocol):
    def done(self) -> bool: ...

    def set_exception(self, error: Exception, /) -> None: ...


def fail_all(waiters: Sequence[_Waiter], error: Exception) -> None:
    """Set an exception on all waiters that are not done."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(error)


class Poller(ABC, Generic[K, V]):
    """A source of values that do not exist yet. A subclass implements one poll of the database."""

    poll_interval_seconds: ClassVar[float] = 0.03
    """The pause between two polls, and so the maximum delay of a value, in seconds."""

    def __init__(self, database: Database, *, primary: bool) -> None:
        self._database = database
        self._primary = primary
        self._waiting: dict[K, list[asyncio.Future[V]]] = {}
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def poll(self, session: ReadSession, keys: Sequence[K]) -> Mapping[K, V]:
        """Return the values that exist now, by key, in one statement; `keys` have no repeats."""

    def subscribe(self, key: K) -> asyncio.Future[V]:
        """Return a future of a key's value. Cancelling the future ends the wait."""
        future: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(future)
        if self._task is None:
            self._task = asyncio.create_task(self._poll_until_idle())
        return future

    async def _poll_until_idle(self) -> None:
        leave_span()  # of the first request: a poll every 30 ms would fill its trace
        try:
            while self._waiting:
                await asyncio.sleep(self.poll_interval_seconds)
                self._drop_cancelled()
                # A later poll may succeed. The subscriber has its own time limit.
                with contextlib.suppress(Unavailable, TimedOut):
                    await self._poll_once()
        except Exception as error:  # noqa: BLE001 - raised by the futures of all waiters
            for futures in self._waiting.values():
                fail_all(futures, error)
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
        values = await self._database.read_one(
            lambda session: self.poll(session, keys), primary=self._primary
        )
        for key, value in values.items():
            for future in self._waiting.pop(key):
                if not future.done():
                    future.set_result(value)
