"""How long a request may take: a time limit that stands still where waiting was asked for.

One timer looks through all requests under way. `asyncio.timeout` would do the same with a timer
each, which costs a single-user read a twentieth more.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final

CHECKS_PER_TIMEOUT: Final = 20
"""In the time that a request has: so a limit is a twentieth late at most."""

LONGEST_PAUSE_SECONDS: Final = 0.25


class Deadlines:
    """The requests under way of one event loop, each of which may take `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._active: set[Deadline] = set()
        self._is_checking = False

    def new_deadline(self) -> "Deadline":
        """A request's deadline, to be entered by the task that works on it."""
        return Deadline(self)

    def add(self, deadline: "Deadline") -> None:
        self._active.add(deadline)
        if not self._is_checking:
            self._is_checking = True
            self._schedule_check()

    def remove(self, deadline: "Deadline") -> None:
        self._active.discard(deadline)

    def _schedule_check(self) -> None:
        pause = min(self.seconds / CHECKS_PER_TIMEOUT, LONGEST_PAUSE_SECONDS)
        asyncio.get_running_loop().call_later(pause, self._check_expired)

    def _check_expired(self) -> None:
        now = asyncio.get_running_loop().time()
        for deadline in [one for one in self._active if one.due <= now]:
            self._active.discard(deadline)
            deadline.expire()
        self._is_checking = bool(self._active)
        if self._is_checking:
            self._schedule_check()


class Deadline:
    """Cancels what is done within it when its time is over, and raises TimeoutError then."""

    __slots__ = ("_cancelling", "_deadlines", "_task", "due", "has_passed")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self.due = 0.0
        """When its time is over, by the event loop's clock."""
        self.has_passed = False

    def __enter__(self) -> "Deadline":
        task = self._task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it is entered by a coroutine
        self._cancelling = task.cancelling()
        self.due = asyncio.get_running_loop().time() + self._deadlines.seconds
        self._deadlines.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._deadlines.remove(self)
        # As asyncio.Timeout does: not where somebody else cancelled as well.
        if (
            self.has_passed
            and self._task
            and self._task.uncancel() <= self._cancelling
            and isinstance(error, asyncio.CancelledError)
        ):
            raise TimeoutError from error

    def expire(self) -> None:
        self.has_passed = True
        if self._task:
            self._task.cancel()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What is waited for within does not count; whoever waits has a limit of their own."""
        clock = asyncio.get_running_loop().time
        left = self.due - clock()
        self.due = float("inf")
        try:
            yield
        finally:
            self.due = clock() + left
