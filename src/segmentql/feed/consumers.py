"""The consumers of the feed in one process: those that wait for changes, and open streams."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from segmentql import metrics
from segmentql.adapters.concurrency import ConcurrencyCounter, ConcurrencyLimit

Kind = Literal["waiting", "stream"]


class Consumers:
    """Counts consumers. It calls `on_first` when the first one begins, `on_last` after the last."""

    def __init__(
        self,
        limit: ConcurrencyLimit,
        *,
        on_first: Callable[[], None],
        on_last: Callable[[], None],
    ) -> None:
        self._counter = ConcurrencyCounter(limit)
        self._on_first = on_first
        self._on_last = on_last

    @property
    def count(self) -> int:
        return self._counter.total

    def add(self, key_id: str | None, kind: Kind) -> None:
        """Count a consumer, which must call `remove` once.

        Args:
            key_id: The API key of the consumer; None if authentication is off.
            kind: Whether it is one waiting call or a stream, for the metric.

        Raises:
            ConcurrencyLimitExceeded: There are too many consumers.
        """
        self._counter.acquire(key_id)
        metrics.FEED_CONSUMERS.labels(kind).inc()
        if self.count == 1:
            self._on_first()

    def remove(self, key_id: str | None, kind: Kind) -> None:
        """Uncount a consumer."""
        self._counter.release(key_id)
        metrics.FEED_CONSUMERS.labels(kind).dec()
        if self.count == 0:
            self._on_last()

    @contextmanager
    def counted(self, key_id: str | None, kind: Kind) -> Iterator[None]:
        """Count a consumer within the block. See `add`."""
        self.add(key_id, kind)
        try:
            yield
        finally:
            self.remove(key_id, kind)
