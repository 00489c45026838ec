"""How long a request may take: a time limit that stands still where waiting was asked for."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType


class Deadline:
    """Cancels what is done within it after `seconds`; `async with` raises TimeoutError then."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> "Deadline":
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._timeout.__aexit__(kind, error, traceback)

    @property
    def has_passed(self) -> bool:
        """Whether it was this that ended the work."""
        return self._timeout.expired()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """What is waited for within does not count; whoever waits has a limit of their own."""
        due = self._timeout.when()
        if due is None:  # it stands still already
            yield
            return
        clock = asyncio.get_running_loop().time
        left = due - clock()
        self._timeout.reschedule(None)
        try:
            yield
        finally:
            if not self._timeout.expired():
                self._timeout.reschedule(clock() + left)
