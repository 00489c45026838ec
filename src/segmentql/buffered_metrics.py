"""Metrics of frequent events: plain numbers that are flushed once per second.

prometheus-client takes a lock for each value, and makes a system call if the value is in a shared
file. A small query changes a dozen values. So these metrics count in attributes, and `flush` adds
the counts to the values. It runs one second after the first count, before a scrape and at exit.
"""

import asyncio
import atexit
from bisect import bisect_left
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

FLUSH_SECONDS: Final = 1.0
"""The maximum delay until other processes, and a process after this one, see a count."""


class _Buffered:
    """A metric with amounts that are not flushed. For use on one event loop."""

    _is_pending = False

    def _schedule_flush(self) -> None:
        """Flush the metric within `FLUSH_SECONDS`, or at once without an event loop."""
        self._is_pending = True
        _pending.add(self)

    def flush(self) -> None:
        """Flush the amounts since the last flush."""
        self._is_pending = False
        self._flush_amounts()

    def _flush_amounts(self) -> None:
        raise NotImplementedError


class _PendingMetrics:
    """The metrics of this process with amounts that are not flushed."""

    def __init__(self) -> None:
        self._metrics: list[_Buffered] = []
        self._is_scheduled = False

    def add(self, metric: _Buffered) -> None:
        """Flush a metric within `FLUSH_SECONDS`, or at once without an event loop."""
        if not self._is_scheduled:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                metric.flush()
                return
            self._is_scheduled = True
            loop.call_later(FLUSH_SECONDS, self.flush)
        self._metrics.append(metric)

    def flush(self) -> None:
        """Flush all metrics."""
        self._is_scheduled = False
        metrics, self._metrics = self._metrics, []
        for metric in metrics:
            metric.flush()


_pending: Final = _PendingMetrics()
atexit.register(_pending.flush)

flush: Final = _pending.flush
"""Flushes all metrics of this process. Call it on the event loop that counts."""


class BufferedCounter(_Buffered, Counter):
    """A counter of frequent events."""

    def _metric_init(self) -> None:
        super()._metric_init()
        self._count = 0.0

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """Add an amount. Exemplars are not supported."""
        self._count += amount
        if not self._is_pending:
            self._schedule_flush()

    def _flush_amounts(self) -> None:
        """Add the amounts since the last flush to the value."""
        count, self._count = self._count, 0.0
        super().inc(count)


class BufferedGauge(_Buffered, Gauge):
    """A gauge that changes frequently."""

    def _metric_init(self) -> None:
        super()._metric_init()
        self._current = 0.0

    def inc(self, amount: float = 1) -> None:
        """Add an amount."""
        self.set(self._current + amount)

    def dec(self, amount: float = 1) -> None:
        """Subtract an amount."""
        self.set(self._current - amount)

    def set(self, value: float) -> None:
        """Set the value."""
        self._current = value
        if not self._is_pending:
            self._schedule_flush()

    def _flush_amounts(self) -> None:
        """Set the value to the current one."""
        super().set(self._current)


class BufferedHistogram(_Buffered, Histogram):
    """A histogram of frequent events."""

    def _metric_init(self) -> None:
        super()._metric_init()
        self._amount = 0.0
        self._counts = [0] * len(self._upper_bounds)

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Count an amount. Exemplars are not supported."""
        self._amount += amount
        self._counts[bisect_left(self._upper_bounds, amount)] += 1
        if not self._is_pending:
            self._schedule_flush()

    def _flush_amounts(self) -> None:
        """Add the amounts since the last flush to the values."""
        amount, self._amount = self._amount, 0.0
        counts, self._counts = self._counts, [0] * len(self._counts)
        self._sum.inc(amount)
        for value, count in zip(self._buckets, counts, strict=True):
            if count:
                value.inc(count)
