"""Decides whether reads may use the replica: it responds, and it does not lag too much.

The lag is measured by positions of the write-ahead log (WAL). Each second the monitor records the
position up to which the primary has flushed its WAL, and reads the position up to which the
replica has replayed it. The lag is the age of the oldest recorded position that the replica has not
replayed. So an idle primary does not look like a lag, as it does with
`pg_last_xact_replay_timestamp()`, and no process has to write a heartbeat.
"""

import asyncio
import contextlib
import time
import weakref
from collections import deque
from typing import Any, Final

import structlog
from sqlalchemy import TextClause, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool

from segmentql import metrics
from segmentql.adapters.connections import make_engine, startup_settings, statement_arguments
from segmentql.settings import Settings

log = structlog.get_logger(__name__)

CHECK_SECONDS: Final = 1
"""The time from one check to the next."""

CHECK_TIMEOUT_SECONDS: Final = 2
"""The timeout of a check. A replica that takes longer is not used."""

CHECKS_TO_RETURN: Final = 3
"""The number of successful checks in a row after which reads use the replica again."""

RETURN_SHARE: Final = 0.5
"""The share of the maximum lag below which reads use the replica again, so that a lag near the
maximum does not cause a switch each second."""

MAX_POSITIONS: Final = 1000
"""The maximum number of recorded positions. Beyond it, the newest one is replaced."""

_REPLAYED: Final = text("""
SELECT CAST(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() - '0/0' END AS bigint)
    AS position
""")
_FLUSHED: Final = text("""
SELECT CAST(CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn() - '0/0' END AS bigint)
    AS position
""")
_RESPONDS: Final = text("SELECT 0 AS position")


class ReplicationLag:
    """The lag of a replica, from positions of the primary's WAL and the times of their reading."""

    def __init__(self) -> None:
        self._positions: deque[tuple[float, int]] = deque()

    def add(self, now: float, flushed: int) -> None:
        """Record a position of the primary.

        Args:
            now: The monotonic time in seconds.
            flushed: The position up to which the primary has flushed its WAL.
        """
        positions = self._positions
        if positions and flushed < positions[-1][1]:
            positions.clear()  # another server is the primary now
        elif positions and flushed == positions[-1][1]:
            return
        if len(positions) == MAX_POSITIONS:
            positions.pop()
        positions.append((now, flushed))

    def seconds(self, now: float, replayed: int) -> float:
        """Return the age in seconds of the oldest position that is not replayed, 0 if none.

        Args:
            now: The monotonic time in seconds.
            replayed: The position up to which the replica has replayed the WAL.
        """
        positions = self._positions
        while positions and positions[0][1] <= replayed:
            positions.popleft()
        return now - positions[0][0] if positions else 0


class ReplicaMonitor:
    """Checks the replica each second while it runs. For use on one event loop."""

    def __init__(self, settings: Settings, url: str, replica: AsyncEngine, *, name: str) -> None:
        """Create the monitor. Until it starts, the replica is used unconditionally.

        Args:
            settings: The settings.
            url: The URL of the replica.
            replica: The engine of the reads of the replica.
            name: The name of the connections in PostgreSQL.
        """
        self.is_usable = True
        self._max_lag_seconds = settings.replica_max_lag_seconds
        name = f"{name} replica check"
        measures_lag = self._max_lag_seconds > 0
        self._replica = _Probe(url, settings, name, _REPLAYED if measures_lag else _RESPONDS)
        self._primary = _Probe(settings.database_url, settings, name, _FLUSHED)
        self._lag = ReplicationLag()
        self._replayed = 0
        self._successes = CHECKS_TO_RETURN
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        event.listen(replica.sync_engine, "connect", self._on_connect)

    async def start(self) -> None:
        """Check the replica once, then in the background until `close`."""
        await self._check()
        self._task = asyncio.create_task(self._run(), name="checks of the replica")

    async def close(self) -> None:
        """Stop the checks and close their connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._replica.disconnect()
        await self._primary.disconnect()
        metrics.REPLICA_FALLBACK.set(0)

    def check_soon(self) -> None:
        """Check the replica now, because a read of it failed."""
        self._wake.set()

    def _on_connect(self, connection: Any, _record: object) -> None:
        self._connections.add(connection.driver_connection)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._wake.wait()
                    self._wake.clear()
            await self._check()

    async def _check(self) -> None:
        reason = await self._find_problem()
        now = time.monotonic()
        lag_seconds = self._lag.seconds(now, self._replayed)
        metrics.REPLICA_LAG_SECONDS.set(lag_seconds)
        if reason is None and 0 < self._max_lag_seconds < lag_seconds:
            reason = "lag"
        if reason is not None:
            self._successes = 0
            if self.is_usable:
                self._stop_using(reason, lag_seconds)
            return
        self._successes += 1
        is_fresh = lag_seconds <= self._max_lag_seconds * RETURN_SHARE
        if not self.is_usable and is_fresh and self._successes >= CHECKS_TO_RETURN:
            self.is_usable = True
            metrics.REPLICA_FALLBACK.set(0)
            log.info("replica_used_again", seconds=round(lag_seconds, 1))

    def _stop_using(self, reason: str, lag_seconds: float) -> None:
        self.is_usable = False
        metrics.REPLICA_FALLBACK.set(1)
        metrics.REPLICA_FALLBACKS.labels(reason).inc()
        log.warning("replica_not_used", reason=reason, seconds=round(lag_seconds, 1))
        if reason != "lag":
            # Its reads in flight fail at once, and `Database.read_one` retries them at the primary.
            # Later connections go to a host of the URL that is a standby then.
            for connection in list(self._connections):
                connection.terminate()

    async def _find_problem(self) -> str | None:
        """Read both positions; return why the replica cannot be used, except for its lag."""
        replayed, is_reachable = await self._replica.read()
        if not is_reachable:
            return "unreachable"
        if self._max_lag_seconds == 0:
            return None
        if replayed is None:
            return "not_a_standby"
        self._replayed = replayed
        # The primary is read afterwards, so a replica that follows it cannot be ahead of it. If the
        # primary does not respond, the positions that it had before are still valid.
        flushed, _ = await self._primary.read()
        if flushed is None:
            return None
        self._lag.add(time.monotonic(), flushed)
        return "diverged" if replayed > flushed else None


class _Probe:
    """A statement that returns a position, on a connection of its own that stays open."""

    def __init__(self, url: str, settings: Settings, name: str, statement: TextClause) -> None:
        self._statement = statement
        self._engine = make_engine(
            url,
            name=name,
            server_settings=startup_settings(settings),
            connect_seconds=CHECK_TIMEOUT_SECONDS,
            arguments={
                **statement_arguments(settings),
                "command_timeout": CHECK_TIMEOUT_SECONDS,
            },
            poolclass=NullPool,
        )
        self._connection: AsyncConnection | None = None

    async def read(self) -> tuple[int | None, bool]:
        """Return the position, and whether the server responded in time. Never raises.

        The position is None if the server does not have the expected role.
        """
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                position = await self._execute()
        except Exception:  # noqa: BLE001 - whatever a server responds, the checks go on
            await self.disconnect()
            return None, False
        if position is None:
            await self.disconnect()  # another host of the URL may have the role
        return position, True

    async def _execute(self) -> int | None:
        if self._connection is None:
            self._connection = await self._engine.connect()
        position: int | None = (await self._connection.execute(self._statement)).scalar_one()
        await self._connection.rollback()
        return position

    async def disconnect(self) -> None:
        """Close the connection without waiting for the server."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if not connection.invalidated:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            driver.terminate()
            await connection.invalidate()
        await connection.close()
