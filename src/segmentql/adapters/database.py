"""Database access: sessions for reads, transactions for writes, and their retries.

Only this module commits. A read session uses AUTOCOMMIT, so that a read costs one round trip.
`Database.transaction` runs a function in a transaction, retries it after a deadlock or conflict,
and publishes its job messages after the commit.
"""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from segmentql import metrics
from segmentql.adapters.autocommit import connect
from segmentql.adapters.connections import probe_engine
from segmentql.adapters.database_errors import (
    CONFLICT_CODES,
    is_unavailable,
    sqlstate,
    translate_database_errors,
)
from segmentql.adapters.engines import POOL_WAIT_SECONDS, service_engine
from segmentql.adapters.history_counters import HistoryCommits
from segmentql.adapters.jobs import Message
from segmentql.adapters.replica import ReplicaMonitor
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.errors import OutcomeUnknown, SegmentQLError, Unavailable, Unresponsive
from segmentql.settings import Settings

T = TypeVar("T")

MAX_ATTEMPTS: Final = 8
"""The maximum number of attempts of a transaction after deadlocks and conflicts."""

RETRY_SECONDS: Final = 0.02
"""The maximum wait before the second attempt. It doubles for each further attempt."""

READ_POOL_SHARE: Final = 0.4
"""The share of the primary's pool that is reserved for reads, so that they do not wait for a burst
of transactions."""

PROBE_TIMEOUT_SECONDS: Final = 1


class Database:
    """The primary and an optional replica for reads. For use on one event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        name: str,
        publish: Callable[[Sequence[Message]], None],
        on_history_commit: Callable[[], None] | None = None,
    ) -> None:
        """Create the pools.

        Args:
            settings: The settings.
            name: The name of the connections in PostgreSQL.
            publish: The function that sends job messages after a commit.
            on_history_commit: The function to call after a commit that records joins or leaves.
                It may also be called after a concurrent commit.
        """
        self._on_history_commit = on_history_commit
        self._history_commits = HistoryCommits()
        self._settings = settings
        self._name = name
        self._primary = service_engine(
            settings.database_url, settings, name, history_commits=self._history_commits
        )
        self._replica = self._primary
        self._replica_monitor: ReplicaMonitor | None = None
        if url := settings.database_read_url:
            self._replica = service_engine(
                url, settings, f"{name} reads", history_commits=self._history_commits
            )
            self._replica_monitor = ReplicaMonitor(settings, url, self._replica, name=name)
        self._long_engines: dict[float, AsyncEngine] = {}
        """The engines of long transactions by their statement timeout, of which there are few."""
        self._publish = publish
        size = settings.database_pool_size
        self._write_slots = asyncio.Semaphore(max(1, size - math.ceil(READ_POOL_SHARE * size)))
        # The same pools, without transactions.
        self._primary_reads = self._primary.execution_options(isolation_level="AUTOCOMMIT")
        self._replica_reads = self._replica.execution_options(isolation_level="AUTOCOMMIT")

    @property
    def has_replica(self) -> bool:
        return self._replica is not self._primary

    @property
    def is_replica_usable(self) -> bool:
        """Whether reads may use the replica, if there is one."""
        return self._replica_monitor is not None and self._replica_monitor.is_usable

    async def start_replica_checks(self) -> None:
        """Check the replica until `dispose`, if there is one. Without checks, it is always used."""
        if self._replica_monitor is not None:
            await self._replica_monitor.start()

    @asynccontextmanager
    async def read(self, *, primary: bool = True) -> AsyncIterator[ReadSession]:
        """Open a session for a few reads. Callers must not await anything else while it is open."""
        engine = self._primary_reads if primary else self._replica_reads
        with translate_database_errors():
            async with ReadSession(engine) as session:
                yield session

    @asynccontextmanager
    async def long_read(self, *, seconds: float) -> AsyncIterator[ReadSession]:
        """Open a transaction for long reads of the primary, outside the pool.

        Args:
            seconds: the timeout of each statement.
        """
        with translate_database_errors():
            async with ReadSession(self._long_engine(seconds)) as session:
                yield session

    def _long_engine(self, seconds: float) -> AsyncEngine:
        engine = self._long_engines.get(seconds)
        if engine is None:  # kept, because the first connection of an engine needs extra queries
            settings = self._settings.model_copy(update={"statement_timeout_seconds": seconds})
            engine = self._long_engines[seconds] = service_engine(
                settings.database_url,
                settings,
                f"{self._name} long",
                history_commits=self._history_commits,
                is_pooled=False,
            )
        return engine

    async def read_one(
        self, work: Callable[[ReadSession], Awaitable[T]], *, primary: bool = True
    ) -> T:
        """Run a read; retry it once if its pooled connection was dead.

        A read of the replica is retried at the primary.

        Args:
            work: The read, which can run several times.
            primary: Whether to read the primary. Otherwise the replica is read, if it is usable.
        """
        monitor = self._replica_monitor
        if not primary and monitor is not None and monitor.is_usable:
            try:
                async with self.read(primary=False) as session:
                    return await work(session)
            except Unresponsive:
                if monitor.is_usable:  # the pool or the statement was too slow
                    raise
            except (Unavailable, DBAPIError):
                # For instance, the replica cancels reads that conflict with the replay.
                monitor.check_soon()
            metrics.REPLICA_RETRIES.inc()
        try:
            async with self.read() as session:
                return await work(session)
        except Unresponsive:
            raise
        except Unavailable:
            pass
        except DBAPIError as error:
            if sqlstate(error) not in CONFLICT_CODES:
                raise
        async with self.read() as session:
            return await work(session)

    async def transaction(
        self,
        work: Callable[[WriteSession], Awaitable[T]],
        *,
        seconds: float | None = None,
        dry_run: bool = False,
    ) -> T:
        """Run `work` in a transaction; commit it, or roll it back if `work` raises.

        `work` can run several times, so it must have no effects except through its session.

        Args:
            work: The work.
            seconds: The timeout of each statement of a long transaction, which gets a connection
                outside the pool. None for the service's timeout.
            dry_run: Whether to roll the transaction back after `work`, and to send no messages.
                No constraint is deferred to the commit, so `work` fails as it would otherwise.

        Raises:
            Unavailable: the database cannot be used. Nothing was changed.
            OutcomeUnknown: the connection was lost during the commit.
            TimedOut: a statement or a wait for a lock took too long. Nothing was changed.
        """
        has_lost_connection = False
        for attempt in range(1, MAX_ATTEMPTS + 1):
            history_commits = self._history_commits.count
            try:
                with translate_database_errors():
                    async with self._write_session(seconds) as session:
                        result = await work(session)
                        if not dry_run:
                            await self._commit(session)
                if dry_run:
                    return result
                self._publish(session.outbox)
                if self._on_history_commit and self._history_commits.count != history_commits:
                    self._on_history_commit()
                return result
            except (OutcomeUnknown, Unresponsive):
                raise
            except Unavailable:
                # A pooled connection may have died since its last use. Nothing was committed, so
                # retry once on a new connection.
                if has_lost_connection:
                    raise
                has_lost_connection = True
            except DBAPIError as error:
                if sqlstate(error) not in CONFLICT_CODES or attempt == MAX_ATTEMPTS:
                    raise
                metrics.TRANSACTION_RETRIES.inc()
                await asyncio.sleep(random.uniform(0, RETRY_SECONDS * 2 ** (attempt - 1)))  # noqa: S311
        raise AssertionError

    def publish(self, messages: Sequence[Message]) -> None:
        """Send job messages that no transaction causes."""
        self._publish(messages)

    @asynccontextmanager
    async def _write_session(self, seconds: float | None) -> AsyncIterator[WriteSession]:
        if seconds is not None:
            async with _connected(self._long_engine(seconds)) as session:
                yield session
            return
        async with self._write_slot(), _connected(self._primary) as session:
            yield session

    @asynccontextmanager
    async def _write_slot(self) -> AsyncIterator[None]:
        async with asyncio.timeout(POOL_WAIT_SECONDS):
            await self._write_slots.acquire()
        try:
            yield
        finally:
            self._write_slots.release()

    @staticmethod
    async def _commit(session: WriteSession) -> None:
        try:
            await session.commit_and_close()
        except (DBAPIError, OSError, TimeoutError) as error:
            if is_unavailable(error) or isinstance(error, TimeoutError):
                raise OutcomeUnknown from error
            raise

    async def dispose(self) -> None:
        """Close all connections. Must run on the event loop that opened them."""
        if self._replica_monitor is not None:
            await self._replica_monitor.close()
        await self._primary.dispose()
        if self.has_replica:
            await self._replica.dispose()
        for engine in self._long_engines.values():
            await engine.dispose()

    async def ping(self) -> bool:
        """Return whether the primary responds to a new connection. Never raises.

        Connecting and the statement may take `PROBE_TIMEOUT_SECONDS` each.
        """
        try:
            probe = probe_engine(
                self._settings, name=f"{self._name} probe", seconds=PROBE_TIMEOUT_SECONDS
            )
            with translate_database_errors():
                async with probe.connect() as connection:
                    await connection.execute(text("SELECT 1"))
        except (SegmentQLError, OSError):
            return False
        return True

    def pool_in_use(self) -> int:
        """Return the number of connections in use of the primary's pool."""
        return int(self._primary.pool.checkedout())  # type: ignore[attr-defined]


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[WriteSession]:
    """Open a session, and close it unless its commit has closed it."""
    session = WriteSession(engine, await connect(engine.sync_engine))
    try:
        yield session
    finally:
        if not session.closed:
            # A cancelled task also returns the connection to the pool.
            await asyncio.shield(asyncio.create_task(session.close()))
