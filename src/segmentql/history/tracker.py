"""The tracker of the settled position: one for each process and database.

It keeps one candidate: a number of the sequence, and the transactions that must end before all
history up to that number is settled. Later transactions do not delay a candidate, and a newer one
never replaces it. So the settled position always advances when the oldest transactions end.

A step of the tracker is a few short statements. While transactions are pending, it holds no
connection. It polls only while at least one caller waits: `settled.POLL_SECONDS` after a step that
left transactions pending, else `IDLE_POLL_SECONDS`. A hint ends the longer pause.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass, replace
from typing import Final

from segmentql import metrics
from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.errors import TimedOut, Unavailable
from segmentql.history import settled
from segmentql.history.settled import HistoryCursor, IncarnationChanged, LastPosition

TASK_NAME: Final = "settled position of history"

IDLE_POLL_SECONDS: Final = 0.075
"""The pause after a step that found no pending transaction, unless a hint ends it earlier."""

MIN_PAUSE_SECONDS: Final = 0.01
"""The shortest pause between two steps, however many hints arrive."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    last: LastPosition
    read_at: float
    """The monotonic time before `last` was read. All earlier changes are up to `last`."""

    holders: frozenset[str]


@dataclass(frozen=True, slots=True)
class SettledHead:
    """The newest settled row that a process knows."""

    last: LastPosition
    """The number of the sequence up to which history is settled, with its incarnation."""

    newest_row: HistoryCursor
    generation: int
    """It grows when the tracker starts over. Rows of another generation may not exist any more."""


@dataclass(slots=True, eq=False)
class _Waiter:
    position: int
    future: asyncio.Future[HistoryCursor]


class SettledPositionTracker:
    """Follows the settled position of the primary."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._candidate: _Candidate | None = None
        self._settled: SettledHead | None = None
        self._generation = 0
        self._up_to_date_at = 0.0
        """The monotonic time until which all changes are settled."""

        self._lock = asyncio.Lock()
        self._started_steps = 0
        self._completed_step = 0
        """The number of the last step that did not fail."""

        self._waiters: list[_Waiter] = []
        self._task: asyncio.Task[None] | None = None
        self._hint = asyncio.Event()

    @property
    def head(self) -> SettledHead | None:
        """The newest settled row of the last step. None if none is known, as for `advance`."""
        return self._settled

    def hint(self) -> None:
        """Poll soon, because history has probably changed."""
        self._hint.set()

    async def close(self) -> None:
        """Stop polling. No caller may wait any more."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def advance(self) -> HistoryCursor | None:
        """Run one step that starts after the call, and return the newest settled row.

        Calls during a step share the next one. If no transaction is pending, the returned row
        includes all changes that were committed before the call.

        Returns:
            The newest settled row that is known. None if none is known since the last restart of
            the server, because a transaction is pending.

        Raises:
            Unavailable, TimedOut: the database cannot be read.
        """
        needed_step = self._started_steps + 1
        async with self._lock:
            if self._completed_step < needed_step:
                self._started_steps = step = self._started_steps + 1
                await self._database.read_one(self._step)
                self._completed_step = step
        return self._settled.newest_row if self._settled else None

    async def wait_beyond(self, position: int) -> HistoryCursor:
        """Return the newest settled row when it is after `position`. Cancelling ends the wait.

        If the server restarts during the wait, this returns the newest settled row of any position.
        The caller must check its cursor before each read of history, as after a resumption.
        """
        waiter = _Waiter(position, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        if self._task is None:
            self._task = asyncio.create_task(self._poll_until_idle(), name=TASK_NAME)
        try:
            return await waiter.future
        finally:
            self._waiters.remove(waiter)

    async def _step(self, session: ReadSession) -> None:
        try:
            if self._candidate is not None:
                await self._check_candidate(session, self._candidate)
            if self._candidate is None:
                await self._begin_candidate(session)
        except IncarnationChanged:
            self.forget()

    async def _begin_candidate(self, session: ReadSession) -> None:
        read_at = time.monotonic()
        last = await settled.read_last_position(session)
        if self._settled is not None:
            before = self._settled.last
            if last == before:
                self._up_to_date_at = read_at
                return
            if last.incarnation != before.incarnation or last.position < before.position:
                self.forget()
        holders = await settled.read_holders(session, last)
        self._candidate = _Candidate(last, read_at, holders)
        if not holders:
            await self._settle(session, self._candidate)

    async def _check_candidate(self, session: ReadSession, candidate: _Candidate) -> None:
        holders = await settled.read_holders(session, candidate.last, among=candidate.holders)
        self._candidate = replace(candidate, holders=holders)
        if not holders:
            await self._settle(session, candidate)

    async def _settle(self, session: ReadSession, candidate: _Candidate) -> None:
        newest_row = await settled.read_newest_row(session, candidate.last)
        self._settled = SettledHead(candidate.last, newest_row, self._generation)
        self._up_to_date_at = candidate.read_at
        self._candidate = None

    def forget(self) -> None:
        """Start over: numbers that were given out may be given out again."""
        self._generation += 1
        self._candidate = self._settled = None
        for waiter in self._waiters:
            waiter.position = -1

    async def _poll_until_idle(self) -> None:
        self._up_to_date_at = time.monotonic()
        try:
            while self._waiters:
                with contextlib.suppress(Unavailable, TimedOut):  # a later step may succeed
                    self._notify(await self.advance())
                lag_seconds = time.monotonic() - self._up_to_date_at
                metrics.HISTORY_SETTLED_LAG_SECONDS.set(lag_seconds)
                await self._pause()
        except Exception as error:  # noqa: BLE001 - raised by all waiters
            for waiter in self._waiters:
                if not waiter.future.done():
                    waiter.future.set_exception(error)
        finally:
            self._task = None
            metrics.HISTORY_SETTLED_LAG_SECONDS.set(0)

    async def _pause(self) -> None:
        if self._candidate is not None:
            await asyncio.sleep(settled.POLL_SECONDS)
            return
        await asyncio.sleep(MIN_PAUSE_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_POLL_SECONDS - MIN_PAUSE_SECONDS):
                await self._hint.wait()
        self._hint.clear()

    def _notify(self, newest_row: HistoryCursor | None) -> None:
        if newest_row is None:
            return
        for waiter in self._waiters:
            if newest_row.position > waiter.position and not waiter.future.done():
                waiter.future.set_result(newest_row)
