"""Limits of what is open at the same time in one process, and of the part of one API key."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from segmentql.errors import ConcurrencyLimitExceeded


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """The maximum numbers in one process. Each is a setting."""

    per_process: int
    per_key: int
    """The maximum for one API key. Callers without a key have only the limit of the process."""


class ConcurrencyCounter:
    """Counts what is open, by API key, for use on one event loop."""

    def __init__(self, limit: ConcurrencyLimit) -> None:
        self._limit = limit
        self._by_key: Counter[str | None] = Counter()
        self.total = 0

    def check(self, key_id: str | None) -> None:
        """Check that one more may be opened.

        Args:
            key_id: The API key of the caller; None if authentication is off.

        Raises:
            ConcurrencyLimitExceeded: The process, or the API key, has its maximum.
        """
        if self.total >= self._limit.per_process:
            raise ConcurrencyLimitExceeded(self._limit.per_process, is_per_key=False)
        if key_id is not None and self._by_key[key_id] >= self._limit.per_key:
            raise ConcurrencyLimitExceeded(self._limit.per_key, is_per_key=True)

    def acquire(self, key_id: str | None) -> None:
        """Count one, which must be released once.

        Raises:
            ConcurrencyLimitExceeded: The process, or the API key, has its maximum.
        """
        self.check(key_id)
        self._by_key[key_id] += 1
        self.total += 1

    def release(self, key_id: str | None) -> None:
        """Uncount one."""
        self._by_key[key_id] -= 1
        if not self._by_key[key_id]:
            del self._by_key[key_id]
        self.total -= 1

    @contextmanager
    def counted(self, key_id: str | None) -> Iterator[None]:
        """Count one while the block runs. See `acquire`."""
        self.acquire(key_id)
        try:
            yield
        finally:
            self.release(key_id)
