"""The HTTP connections of one process: how many there may be, and how long each may wait.

One timer checks all connections. A timer for each would cost every request two more calls.
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
"""Time for a complete request head, from the connection or from the head's first byte."""

HEAD_GRACE_SECONDS: Final = 1.0
"""A connection whose head takes longer than this makes room for a new one when the table is full.
An ordinary client sends its head in one packet."""

LINGER_SECONDS: Final = 2.0
"""Time for a client to read the last answer and to close, before the connection is cut."""

MAX_LINGERING: Final = 64
"""Closed connections that still linger; beyond this number the oldest is cut at once."""

CHECK_SECONDS: Final = 0.5

OTHER_DESCRIPTORS: Final = 100
"""File descriptors that a process needs beside its HTTP connections: connections to PostgreSQL,
Redis and the object store, files, and the connections that linger."""

MIN_CONNECTIONS: Final = 10

MAX_EVICTIONS: Final = 16
"""Connections closed by one check when no file descriptor is free."""


def fit_to_descriptors(wanted: int) -> int:
    """Raise the soft limit on open files as needed; return how many connections it then admits."""
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
    """The reasons why the server rejects or closes a connection, as metrics and logs name them."""

    FULL = "full"
    EVICTED = "evicted"
    HEAD_TIMEOUT = "head_timeout"
    HEAD_TOO_LARGE = "head_too_large"
    BODY_TIMEOUT = "body_timeout"
    MALFORMED = "malformed"
    NO_DESCRIPTOR = "no_descriptor"


class Connection(Protocol):
    """What the table needs to know of a connection."""

    peer: str
    """The client's address, for the log."""

    def is_responding(self) -> bool:
        """Return whether a response is being made."""

    def expire(self) -> None:
        """Answer and close, because the head or the body did not come in time."""

    def close(self) -> None:
        """Close after what is already written is sent."""

    def abort(self) -> None:
        """Close now, whatever is not sent yet."""


class ConnectionTable:
    """The connections of one process, by what they wait for; used on one event loop."""

    def __init__(
        self, *, limit: int, keep_alive_seconds: float, head_seconds: float = HEAD_SECONDS
    ) -> None:
        self.limit = limit
        self.head_seconds = head_seconds
        self._keep_alive_seconds = keep_alive_seconds
        # Each in the order in which its entries become due, because each has one duration.
        self._awaiting: dict[Connection, float] = {}
        """Connections whose head, or unread body, has yet to come."""
        self._idle: dict[Connection, float] = {}
        """Connections between two requests."""
        self._lingering: dict[Connection, float] = {}
        self._is_checking = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._now: Callable[[], float] = lambda: 0.0
        self._log = ThrottledLog(structlog.get_logger(__name__))

    def admit(self, connection: Connection, *, connected: int) -> bool:
        """Return whether a new connection may stay; close another one for it if the table is full.

        Args:
            connected: The number of connections of this process, the new one included.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._now = self._loop.time
        if connected - len(self._lingering) > self.limit and not self._evict():
            return False
        self.await_input(connection)
        return True

    def await_input(self, connection: Connection) -> None:
        """Start the time for a head, or for the rest of a body that nothing reads."""
        if connection not in self._awaiting:
            self._awaiting[connection] = self._now() + self.head_seconds
            self._check_later()

    def rest(self, connection: Connection) -> None:
        """Start the time between two requests."""
        self._awaiting.pop(connection, None)
        self._idle[connection] = self._now() + self._keep_alive_seconds
        if not self._is_checking:  # once for each request: a call less
            self._check_later()

    def work(self, connection: Connection) -> None:
        """Stop every time: a request is being answered."""
        self._awaiting.pop(connection, None)
        self._idle.pop(connection, None)

    def linger(self, connection: Connection) -> None:
        """Give a client the time to read the last answer."""
        self.work(connection)
        self._lingering[connection] = self._now() + LINGER_SECONDS
        if len(self._lingering) > MAX_LINGERING:
            oldest = next(iter(self._lingering))
            del self._lingering[oldest]
            oldest.abort()
        self._check_later()

    def forget(self, connection: Connection) -> None:
        """Remove a connection that is lost or was handed over to another protocol."""
        self.work(connection)
        self._lingering.pop(connection, None)

    def note(self, reason: CloseReason, peer: str) -> None:
        """Count and log that a connection was rejected or closed."""
        metrics.CONNECTIONS_CLOSED.labels(reason).inc()
        self._log.warning("connection_closed", reason=reason, client=peer)

    def _evict(self) -> bool:
        """Close the connection that has waited longest, if one waits."""
        slow = next(iter(self._awaiting), None)
        if slow is not None:
            began = self._awaiting[slow] - self.head_seconds
            if slow.is_responding() or self._now() - began < HEAD_GRACE_SECONDS:
                slow = None
        chosen = slow or next(iter(self._idle), None)
        if chosen is None:
            return False
        self.note(CloseReason.EVICTED, chosen.peer)
        chosen.close()
        return True

    def _check_later(self) -> None:
        if not self._is_checking:
            self._is_checking = True
            self._event_loop.call_later(CHECK_SECONDS, self._check)

    def _check(self) -> None:
        now = self._now()
        for connection in _due(self._awaiting, now):
            if connection.is_responding():  # of a pipelined request: its turn comes later
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

        libuv then drops new connections without a word, and asyncio's own loop spins.
        """
        for _ in range(MAX_EVICTIONS):
            try:
                os.close(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                self.note(CloseReason.NO_DESCRIPTOR, "")
                if not self._evict():
                    return
            else:
                return

    @property
    def _event_loop(self) -> asyncio.AbstractEventLoop:
        assert self._loop  # noqa: S101 - set with the first connection
        return self._loop


def _due(waiting: dict[Connection, float], now: float) -> list[Connection]:
    """Take the connections out whose time is over."""
    due: list[Connection] = []
    for connection, when in waiting.items():
        if when > now:
            break
        due.append(connection)
    for connection in due:
        del waiting[connection]
    return due
