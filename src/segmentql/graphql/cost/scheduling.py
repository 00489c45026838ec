"""Taking turns: work that takes long gives the event loop back again and again.

So what is read by the thousand is not felt by those who ask for one, and takes longer itself.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

TIME_SLICE_SECONDS: Final = 0.004
"""How long one request's work goes on before others have a turn."""

THROTTLE_FACTOR: Final = 2
"""How many times as long as its turn it rests then, where others have something to do."""

BUSY_SECONDS: Final = 0.0005
"""They have when the event loop takes so long to come back."""


BACKGROUND_CONCURRENCY: Final = 2


async def yield_to_event_loop() -> None:
    """Give the event loop a turn, and time to spare where it is busy."""
    began = time.perf_counter()
    await asyncio.sleep(0)
    if time.perf_counter() - began > BUSY_SECONDS:
        await asyncio.sleep(THROTTLE_FACTOR * TIME_SLICE_SECONDS)


class MutationGate:
    """Lets through one in a turn of the event loop, in the order in which they came.

    A hundred changes that arrive at once would otherwise all begin before anything else has a turn:
    they keep the event loop for 20 ms.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def enter(self) -> None:
        async with self._lock:
            await asyncio.sleep(0)


class BackgroundLimiter:
    """What the process does a few at a time, with rests where it is busy: nobody waits for it yet.

    A hundred reports asked for at once would otherwise keep the event loop for a quarter of a
    second.
    """

    def __init__(self) -> None:
        self._semaphore = asyncio.Semaphore(BACKGROUND_CONCURRENCY)

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        async with self._semaphore:
            yield
            await yield_to_event_loop()
