"""The consumers of the feed in one process: those that wait for changes, and open streams."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from segmentql import metrics
from segmentql.errors import FeedConsumersExceeded

Kind = Literal["waiting", "stream"]


@dataclass(frozen=True, slots=True)
class ConsumerLimits:
    """The maximum numbers of concurrent consumers in one process. Each is a setting."""

    per_process: int
    per_key: int
    """Of one API key."""


class Consumers:
    """Counts consumers. It calls `on_first` when the first one begins, `on_last` after the last."""

    def __init__(
        self,
        limits: ConsumerLimits,
        *,
        on_first: Callable[[], None],
        on_last: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._on_first = on_first
        self._on_last = on_last
        self._by_key: Counter[str | None] = Counter()
        self.count = 0

    def add(self, key_id: str | None, kind: Kind) -> None:
        """Count a consumer, which must call `remove` once.

        Args:
            key_id: The API key of the consumer; None if authentication is off.
            kind: Whether it is one waiting call or a stream, for the metric.

        Raises:
            FeedConsumersExceeded: There are too many consumers.
        """
        if self.count >= self._limits.per_process:
            raise FeedConsumersExceeded(self._limits.per_process, is_of_key=False)
        if key_id is not None and self._by_key[key_id] >= self._limits.per_key:
            raise FeedConsumersExceeded(self._limits.per_key, is_of_key=True)
        self._by_key[key_id] += 1
        self.count += 1
        metrics.FEED_CONSUMERS.labels(kind).inc()
        if self.count == 1:
            self._on_first()

    def remove(self, key_id: str | None, kind: Kind) -> None:
        """Uncount a consumer."""
        self._by_key[key_id] -= 1
        if not self._by_key[key_id]:
            del self._by_key[key_id]
        self.count -= 1
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
