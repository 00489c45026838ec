"""Deadlines: the time limit of a request, which pauses while the client has asked to wait.

One timer checks all active deadlines. `asyncio.timeout` would give each request a timer of its own,
which makes a single-user read 5 % slower.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final

CHECKS_PER_TIMEOUT: Final = 20
"""The minimum number of checks in one time limit. A deadline expires at most a twentieth of it too
late."""

MAX_CHECK_INTERVAL_SECONDS: Final = 0.25
"""The maximum interval between two checks, in seconds."""


class Deadlines:
    """The active deadlines of one event loop, with the same time limit of `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._active: set[Deadline] = set()
        self._is_checking = False

    def new_deadline(self) -> "Deadline":
        """Return a deadline. The task that it limits must enter it."""
        return Deadline(self)

    def add(self, deadline: "Deadline") -> None:
        """Start to check a deadline."""
        self._active.add(deadline)
        if not self._is_checking:
            self._is_checking = True
            self._schedule_check()

    def remove(self, deadline: "Deadline") -> None:
        """Stop checking a deadline."""
        self._active.discard(deadline)

    def _schedule_check(self) -> None:
        interval = min(self.seconds / CHECKS_PER_TIMEOUT, MAX_CHECK_INTERVAL_SECONDS)
        asyncio.get_running_loop().call_later(interval, self._check_expired)

    def _check_expired(self) -> None:
        now = asyncio.get_running_loop().time()
        for deadline in [deadline for deadline in self._active if deadline.expires_at <= now]:
            self._active.discard(deadline)
            deadline.expire()
        self._is_checking = bool(self._active)
        if self._is_checking:
            self._schedule_check()


class Deadline:
    """A context manager that cancels its block at the time limit and then raises TimeoutError."""

    __slots__ = (
        "_cancelling",
        "_deadlines",
        "_pauses",
        "_remaining",
        "_task",
        "expires_at",
        "has_expired",
    )

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._pauses = 0
        self._remaining = 0.0
        self.expires_at = 0.0
        """The time at which the deadline expires, in seconds of the event loop's clock."""
        self.has_expired = False

    def __enter__(self) -> "Deadline":
        task = self._task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine enters it
        self._cancelling = task.cancelling()
        self.expires_at = asyncio.get_running_loop().time() + self._deadlines.seconds
        self._deadlines.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._deadlines.remove(self)
        # Like asyncio.Timeout: if the task was also cancelled from outside, it stays cancelled.
        if (
            self.has_expired
            and self._task
            and self._task.uncancel() <= self._cancelling
            and isinstance(error, asyncio.CancelledError)
        ):
            raise TimeoutError from error

    def expire(self) -> None:
        """Cancel the task."""
        self.has_expired = True
        if self._task:
            self._task.cancel()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Pause the deadline within the block, which must have a time limit of its own.

        Several blocks may overlap.
        """
        clock = asyncio.get_running_loop().time
        self._pauses += 1
        if self._pauses == 1:
            self._remaining = self.expires_at - clock()
            self.expires_at = float("inf")
        try:
            yield
        finally:
            self._pauses -= 1
            if self._pauses == 0:
                self.expires_at = clock() + self._remaining
