"""The table of HTTP connections of a process, which limits their number and their waiting times.

One timer checks all connections, because a timer per connection would cost each request two calls.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Final, Protocol

import structlog

from segmentql import metrics
from segmentql.logs import ThrottledLog

HEAD_SECONDS: Final = 10.0
"""The maximum time for a complete request head, from the connection or the head's first byte."""

HEAD_GRACE_SECONDS: Final = 1.0
"""If the table is full, a connection whose head takes longer than this is closed for a new one.
Ordinary clients send the head in one packet."""

LINGER_SECONDS: Final = 2.0
"""The time for a client to read the last response and close, before the connection is aborted."""

STOP_IDLE_SECONDS: Final = 1.0
"""The time from the end of the listening socket until idle connections are closed. A proxy that has
sent a request on one of them meanwhile gets the response."""

MAX_LINGERING: Final = 64
"""The maximum number of lingering connections. Above it, the oldest one is aborted."""

MAX_PIPELINED_REQUESTS: Final = 8
"""The maximum number of requests that wait for the responses before. Beyond it the connection is
closed after the last of these responses. One read from the socket can have thousands of requests,
and each takes a few kilobytes of memory until its response."""

CHECK_SECONDS: Final = 0.5

OTHER_DESCRIPTORS: Final = 100
"""The file descriptors that a process needs in addition to its HTTP connections: connections to
PostgreSQL, Redis and the object store, files, and lingering connections."""

MIN_CONNECTIONS: Final = 10

MAX_EVICTIONS: Final = 16
"""The maximum number of connections that one check closes if no file descriptor is free."""


def fit_to_descriptors(wanted: int) -> int:
    """Raise the soft limit on open files as needed; return the number of connections it allows."""
    if sys.platform == "win32":
        return wanted
    import resource  # noqa: PLC0415 - it does not exist on Windows

    needed = wanted + OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    reachable = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
    except (OSError, ValueError):  # macOS has a limit below the hard one
        reachable = soft
    admitted = max(MIN_CONNECTIONS, min(wanted, reachable - OTHER_DESCRIPTORS))
    if admitted < wanted:
        structlog.get_logger(__name__).warning(
            "max_connections_lowered", wanted=wanted, admitted=admitted, open_files=reachable
        )
    return admitted


class CloseReason(StrEnum):
    """The reason of a rejected or closed connection, in metrics and logs."""

    FULL = "full"
    EVICTED = "evicted"
    HEAD_TIMEOUT = "head_timeout"
    HEAD_TOO_LARGE = "head_too_large"
    BODY_TIMEOUT = "body_timeout"
    MALFORMED = "malformed"
    PIPELINE_FULL = "pipeline_full"
    NO_DESCRIPTOR = "no_descriptor"


class Connection(Protocol):
    """A connection in the table."""

    peer: str
    """The client's address, for the log."""

    def is_responding(self) -> bool:
        """Return whether a response is in progress."""

    def expire(self) -> None:
        """Respond and close, because the head or the body did not arrive in time."""

    def close(self) -> None:
        """Close after the written data is sent."""

    def abort(self) -> None:
        """Close at once and discard data that the client has not read."""


class ConnectionTable:
    """The connections of one process, by their state. For use on one event loop."""

    def __init__(
        self, *, limit: int, keep_alive_seconds: float, head_seconds: float = HEAD_SECONDS
    ) -> None:
        self.limit = limit
        self.head_seconds = head_seconds
        self._keep_alive_seconds = keep_alive_seconds
        # Each dict has one duration, so its entries are in the order of their deadlines.
        self._awaiting: dict[Connection, float] = {}
        """Deadlines of connections whose head, or unread body, is incomplete."""
        self._idle: dict[Connection, float] = {}
        """Deadlines of connections between two requests."""
        self._lingering: dict[Connection, float] = {}
        self._is_checking = False
        self.is_draining = False
        """Whether the process stops, so that each response closes its connection."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._now: Callable[[], float] = lambda: 0.0
        self._log = ThrottledLog(structlog.get_logger(__name__))

    def admit(self, connection: Connection, *, connected: int) -> bool:
        """Admit a new connection, if needed in place of another one; return whether it is admitted.

        Args:
            connected: the number of connections of this process, including the new one.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._now = self._loop.time
        if connected - len(self._lingering) > self.limit and not self._evict():
            return False
        self.await_input(connection)
        return True

    def await_input(self, connection: Connection) -> None:
        """Set the deadline for a head, or for the rest of an unread body."""
        if connection not in self._awaiting:
            self._awaiting[connection] = self._now() + self.head_seconds
            self._check_later()

    def set_idle(self, connection: Connection) -> None:
        """Set the keep-alive deadline."""
        self._awaiting.pop(connection, None)
        self._idle[connection] = self._now() + self._keep_alive_seconds
        if not self._is_checking:  # saves a call per request
            self._check_later()

    def clear_deadline(self, connection: Connection) -> None:
        """Remove the deadline, because a request is in progress."""
        self._awaiting.pop(connection, None)
        self._idle.pop(connection, None)

    def linger(self, connection: Connection) -> None:
        """Set the deadline for the client to read the last response."""
        self.clear_deadline(connection)
        self._lingering[connection] = self._now() + LINGER_SECONDS
        if len(self._lingering) > MAX_LINGERING:
            oldest = next(iter(self._lingering))
            del self._lingering[oldest]
            oldest.abort()
        self._check_later()

    def drain(self) -> None:
        """Let each response close its connection from now on."""
        self.is_draining = True

    def close_when_idle(self, connection: Connection) -> None:
        """Close a connection without a request in progress, if none begins soon."""

        def close() -> None:
            if not connection.is_responding():
                connection.close()

        asyncio.get_running_loop().call_later(STOP_IDLE_SECONDS, close)

    def forget(self, connection: Connection) -> None:
        """Remove a connection that was lost or upgraded to another protocol."""
        self.clear_deadline(connection)
        self._lingering.pop(connection, None)

    def record_closed(self, reason: CloseReason, peer: str) -> None:
        """Count and log a rejected or closed connection."""
        metrics.CONNECTIONS_CLOSED.labels(reason).inc()
        self._log.warning("connection_closed", reason=reason, client=peer)

    def _evict(self) -> bool:
        """Close the connection that has waited longest; return whether there was one."""
        slow = next(iter(self._awaiting), None)
        if slow is not None:
            started = self._awaiting[slow] - self.head_seconds
            if slow.is_responding() or self._now() - started < HEAD_GRACE_SECONDS:
                slow = None
        evicted = slow or next(iter(self._idle), None)
        if evicted is None:
            return False
        self.record_closed(CloseReason.EVICTED, evicted.peer)
        evicted.close()
        return True

    def _check_later(self) -> None:
        if not self._is_checking:
            self._is_checking = True
            self._event_loop.call_later(CHECK_SECONDS, self._check)

    def _check(self) -> None:
        now = self._now()
        for connection in _due(self._awaiting, now):
            if connection.is_responding():  # a pipelined request, which waits for this response
                self._awaiting[connection] = now + self.head_seconds
            else:
                connection.expire()
        for connection in _due(self._idle, now):
            connection.close()
        for connection in _due(self._lingering, now):
            connection.abort()
        self._keep_descriptor_free()
        self._is_checking = bool(self._awaiting or self._idle or self._lingering)
        if self._is_checking:
            self._event_loop.call_later(CHECK_SECONDS, self._check)

    def _keep_descriptor_free(self) -> None:
        """Close waiting connections if no file descriptor is free.

        Without a free descriptor, libuv silently drops new connections, and asyncio's loop spins.
        """
        for _ in range(MAX_EVICTIONS):
            try:
                os.close(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                self.record_closed(CloseReason.NO_DESCRIPTOR, "")
                if not self._evict():
                    return
            else:
                return

    @property
    def _event_loop(self) -> asyncio.AbstractEventLoop:
        assert self._loop  # noqa: S101 - set with the first connection
        return self._loop


def _due(waiting: dict[Connection, float], now: float) -> list[Connection]:
    """Remove and return the connections whose deadline has passed."""
    due: list[Connection] = []
    for connection, deadline in waiting.items():
        if deadline > now:
            break
        due.append(connection)
    for connection in due:
        del waiting[connection]
    return due
