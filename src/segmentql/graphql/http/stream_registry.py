"""The open streams of a process: their limits, and their end when the server must end them.

A stream outlives the checks of its request. So the registry checks its API key again several times
a second, and ends the streams of a revoked key within a second. When the process shuts down, it
ends all streams, so that the clients resume at another process. It never ends a connection that
executes a query or a mutation: its client could not know the outcome.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from types import TracebackType
from typing import Final

import structlog

from segmentql import metrics
from segmentql.adapters.concurrency import ConcurrencyCounter, ConcurrencyLimit
from segmentql.errors import TimedOut, Unauthenticated, Unavailable
from segmentql.principal import Principal

log = structlog.get_logger(__name__)

KEY_CHECK_SECONDS: Final = 0.2
"""The interval at which the keys of the open streams are checked. Together with the refresh of the
key cache it must be less than a second."""


class EndReason(StrEnum):
    """The reason why a connection with streams ended, in metrics and logs."""

    DONE = "done"
    """The source ended, or the client has completed its operations."""
    FAILED = "failed"
    """A result failed."""
    DISCONNECTED = "disconnected"
    """The client closed the connection."""
    REVOKED = "revoked"
    """The API key was revoked."""
    STOPPING = "stopping"
    """The process shuts down."""
    UNREAD = "unread"
    """The client did not read what it was sent within the time limit."""
    INVALID = "invalid"
    """The client violated the protocol."""
    RATE_LIMITED = "rate_limited"
    """The client exceeded the rate limit of its API key."""


class StreamConnection:
    """A connection with streams: an SSE response, or a WebSocket. A context manager for its task.

    If the registry ends the connection, its block is cancelled. The context manager then suppresses
    the cancellation, and `end_reason` has the reason.
    """

    def __init__(
        self, registry: "StreamRegistry", principal: Principal, authorization: bytes | None
    ) -> None:
        self._registry = registry
        self.principal = principal
        self.authorization = authorization
        self.end_reason: EndReason | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._is_cancelled = False
        self._is_endable = True

    def set_end_reason(self, reason: EndReason) -> None:
        """Note why the block is about to end, unless another reason came first."""
        if self.end_reason is None:
            self.end_reason = reason

    def cancel(self, reason: EndReason) -> None:
        """Cancel the block of the connection, unless it is ending or must finish."""
        if self._is_endable and self.end_reason is None and self._task is not None:
            self.end_reason = reason
            self._is_cancelled = True
            self._task.cancel()

    def finish_operation(self) -> None:
        """From now on, do not cancel the block: it executes a query or a mutation."""
        self._is_endable = False

    def __enter__(self) -> "StreamConnection":
        task = self._task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine enters it
        self._cancelling = task.cancelling()
        self._registry.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        task, self._task = self._task, None
        self._registry.remove(self)
        # If the task was also cancelled from outside, it stays cancelled.
        return (
            self._is_cancelled
            and task is not None
            and task.uncancel() <= self._cancelling
            and isinstance(error, asyncio.CancelledError)
        )


class StreamRegistry:
    """The streams of one process, for use on one event loop."""

    def __init__(
        self,
        limit: ConcurrencyLimit,
        *,
        stopping: asyncio.Event,
        authenticate: Callable[[bytes | None], Awaitable[Principal]] | None,
    ) -> None:
        """Create the registry.

        Args:
            limit: The maximum numbers of streams, and of connections with streams.
            stopping: The event that is set when the process shuts down.
            authenticate: The function that authenticates requests; None if no API key is required.
        """
        self._stopping = stopping
        self._authenticate = authenticate
        self._connections: set[StreamConnection] = set()
        self._connection_counter = ConcurrencyCounter(limit)
        self._stream_counter = ConcurrencyCounter(limit)
        self._watches: list[asyncio.Task[None]] = []

    @property
    def is_stopping(self) -> bool:
        """Whether the process shuts down, so that no stream may be opened."""
        return self._stopping.is_set()

    def connect(self, principal: Principal, authorization: bytes | None) -> StreamConnection:
        """Return a new connection, which its task must enter at once.

        Args:
            principal: The caller.
            authorization: The `Authorization` header, or its equivalent, to check the key again.

        Raises:
            ConcurrencyLimitExceeded: There are too many connections.
        """
        self._connection_counter.check(principal.key_id)
        return StreamConnection(self, principal, authorization)

    @contextmanager
    def stream(self, principal: Principal, transport: str) -> Iterator[None]:
        """Count a stream while the block runs.

        Raises:
            ConcurrencyLimitExceeded: There are too many streams.
        """
        with self._stream_counter.counted(principal.key_id):
            metrics.STREAMS.labels(transport).inc()
            try:
                yield
            finally:
                metrics.STREAMS.labels(transport).dec()

    def add(self, connection: StreamConnection) -> None:
        """Count and watch a connection."""
        self._connection_counter.acquire(connection.principal.key_id)
        self._connections.add(connection)
        if not self._watches:
            self._watches = [asyncio.create_task(self._end_all_at_shutdown())]
            if self._authenticate is not None:
                self._watches.append(
                    asyncio.create_task(self._check_keys_again(self._authenticate))
                )

    def remove(self, connection: StreamConnection) -> None:
        """Stop watching a connection."""
        self._connection_counter.release(connection.principal.key_id)
        self._connections.discard(connection)
        if not self._connections:
            for watch in self._watches:
                watch.cancel()
            self._watches = []

    async def _end_all_at_shutdown(self) -> None:
        await self._stopping.wait()
        for connection in list(self._connections):
            connection.cancel(EndReason.STOPPING)

    async def _check_keys_again(
        self, authenticate: Callable[[bytes | None], Awaitable[Principal]]
    ) -> None:
        while True:
            await asyncio.sleep(KEY_CHECK_SECONDS)
            try:
                await self._end_revoked(authenticate)
            except Exception:
                log.exception("stream_key_check_failed")

    async def _end_revoked(
        self, authenticate: Callable[[bytes | None], Awaitable[Principal]]
    ) -> None:
        headers = list({connection.authorization for connection in self._connections})
        is_revoked = await asyncio.gather(
            *(_is_rejected(authenticate, header) for header in headers)
        )
        revoked = {header for header, rejected in zip(headers, is_revoked, strict=True) if rejected}
        for connection in list(self._connections):
            if connection.authorization in revoked:
                connection.cancel(EndReason.REVOKED)


async def _is_rejected(
    authenticate: Callable[[bytes | None], Awaitable[Principal]], authorization: bytes | None
) -> bool:
    try:
        await authenticate(authorization)
    except Unauthenticated:
        return True
    except (
        Unavailable,
        TimedOut,
    ):  # the source cannot be read either; the key cache logs it
        return False
    except Exception:  # the keys of the other streams are checked nevertheless
        log.exception("stream_key_check_failed")
        return False
    return False
