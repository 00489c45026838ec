"""Scheduling: long work yields to the event loop, so that small requests stay fast.

Bulk reads take longer, and reads of a single user are not delayed by them.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

TIME_SLICE_SECONDS: Final = 0.004
"""How long one request's work runs before it yields to the event loop."""

THROTTLE_FACTOR: Final = 2
"""The pause after a time slice while the event loop is busy, as a multiple of the slice."""

BUSY_SECONDS: Final = 0.0005
"""The event loop is busy if one iteration takes longer than this."""

BACKGROUND_CONCURRENCY: Final = 2
"""The maximum number of concurrent blocks of a `BackgroundLimiter`."""


async def yield_to_event_loop() -> None:
    """Yield to the event loop for one iteration; if the loop is busy, also pause."""
    started = time.perf_counter()
    await asyncio.sleep(0)
    if time.perf_counter() - started > BUSY_SECONDS:
        await asyncio.sleep(THROTTLE_FACTOR * TIME_SLICE_SECONDS)


class MutationGate:
    """A gate that starts one mutation per iteration of the event loop, in the order of arrival.

    Without it, a hundred mutations that arrive at once would all start in the same iteration and
    block the event loop for 20 ms.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def enter(self) -> None:
        """Wait until the next mutation may start."""
        async with self._lock:
            await asyncio.sleep(0)


class BackgroundLimiter:
    """A limiter of work whose result no client waits for yet, such as the creation of reports.

    It runs `BACKGROUND_CONCURRENCY` blocks at a time and pauses after each if the event loop is
    busy. Without it, a hundred reports that are requested at once would block the event loop for
    250 ms.
    """

    def __init__(self) -> None:
        self._semaphore = asyncio.Semaphore(BACKGROUND_CONCURRENCY)

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """Run the block when there is capacity."""
        async with self._semaphore:
            yield
            await yield_to_event_loop()


class ExpensiveSlot:
    """The slot of one expensive query, of which only a few run at a time."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self._is_held = False
        self._pauses = 0

    async def __aenter__(self) -> "ExpensiveSlot":
        await self._acquire()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._release()

    @asynccontextmanager
    async def pause(self) -> AsyncIterator[None]:
        """Give the slot to other queries within the block. Several blocks may overlap."""
        self._pauses += 1
        if self._pauses == 1:
            self._release()
        try:
            yield
        finally:
            self._pauses -= 1
        if self._pauses == 0:
            await self._acquire()

    async def _acquire(self) -> None:
        await self._slots.acquire()
        self._is_held = True

    def _release(self) -> None:
        if self._is_held:
            self._is_held = False
            self._slots.release()
