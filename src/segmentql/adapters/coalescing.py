"""One run of a job for all messages that arrive at about the same time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

C = TypeVar("C")


class CoalescedWork(Generic[C]):
    """The work of a job without arguments that does everything that is due when it begins.

    A run begins at least `interval_seconds` after the last one began. A message that arrives while
    a run waits for its beginning needs no run of its own. If that run fails, its message is
    retried. If the process dies, the scheduler finds the work.
    """

    def __init__(self, work: Callable[[C], Awaitable[None]], *, interval_seconds: float) -> None:
        """Create the work. A process has one, which its event loop calls.

        Args:
            work: The function that does everything that is due when it is called.
            interval_seconds: The minimum interval between the beginnings of two runs.
        """
        self._work = work
        self._interval_seconds = interval_seconds
        self._next_begin = 0.0
        self._is_waiting = False

    async def __call__(self, context: C) -> None:
        """Run the work, unless a run that has not begun does it."""
        if self._is_waiting:
            return
        self._is_waiting = True
        try:
            await asyncio.sleep(max(0.0, self._next_begin - time.monotonic()))
        finally:
            self._is_waiting = False
        self._next_begin = time.monotonic() + self._interval_seconds
        await self._work(context)
