"""The database: engines, sessions for reading and for writing, and what its faults mean.

Nobody else commits. A read session runs each statement on its own (AUTOCOMMIT), so that a read
costs one round trip; `Database.transaction` runs a whole change, again where PostgreSQL broke a
deadlock, and hands over the jobs that the change asked for once it is committed.
"""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final, Literal, TypeVar

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from segmentql import metrics
from segmentql.adapters.connections import driver_error, probe_engine
from segmentql.adapters.engines import POOL_WAIT_SECONDS, service_engine
from segmentql.adapters.jobs import Message
from segmentql.errors import OutcomeUnknown, SegmentQLError, TimedOut, Unavailable, Unresponsive
from segmentql.settings import Settings

T = TypeVar("T")

MAX_ATTEMPTS: Final = 8
"""Of one change, while PostgreSQL picks it as the victim of a deadlock or conflict."""

RETRY_SECONDS: Final = 0.02
"""The longest wait before the second attempt; doubled for each further one."""

READ_POOL_SHARE: Final = 0.4
"""Of the primary's pool, which changes leave to reads: a burst of them waits for itself alone."""

EXACT_COUNT_LIMIT: Final = 100_000
"""Counting so many takes some 10 ms."""

PROBE_SECONDS: Final = 1

# https://www.postgresql.org/docs/18/errcodes-appendix.html
_CONFLICTS: Final = {"40001", "40P01"}
_LOCK_NOT_AVAILABLE: Final = "55P03"
_QUERY_CANCELED: Final = "57014"
_UNAVAILABLE_CLASSES: Final = ("08", "28", "3D", "53", "57", "58")
"""Connection exceptions, the login or the database refused, insufficient resources, operator
intervention, system errors."""


class ReadSession(AsyncSession):
    """Reads, one statement at a time. The type keeps it out of functions that write."""


class WriteSession(AsyncSession):
    """Writes, within the transaction that `Database.transaction` opened and will commit."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine, expire_on_commit=False, autoflush=False)
        self.outbox: list[Message] = []

    def after_commit(self, message: Message) -> None:
        """Have a job sent once this transaction is committed; never if it is not."""
        self.outbox.append(message)


class Database:
    """The primary and, where one is set, a replica for reads; used on one event loop."""

    def __init__(
        self, settings: Settings, *, name: str, publish: Callable[[Sequence[Message]], None]
    ) -> None:
        self._settings = settings
        self._name = name
        self._primary = service_engine(settings.database_url, settings, name)
        self._replica = (
            service_engine(settings.database_read_url, settings, f"{name} reads")
            if settings.database_read_url
            else self._primary
        )
        self._long: dict[float, AsyncEngine] = {}
        """The engines of long reads, by how many seconds a statement may take: a few."""
        self._publish = publish
        size = settings.database_pool_size
        self._write_slots = asyncio.Semaphore(max(1, size - math.ceil(READ_POOL_SHARE * size)))
        # The same pools, each statement for itself.
        self._primary_reads = self._primary.execution_options(isolation_level="AUTOCOMMIT")
        self._replica_reads = self._replica.execution_options(isolation_level="AUTOCOMMIT")

    @property
    def has_replica(self) -> bool:
        return self._replica is not self._primary

    @asynccontextmanager
    async def read(self, *, primary: bool = True) -> AsyncIterator[ReadSession]:
        """Open a session for a few reads; never hold it while awaiting anything else."""
        engine = self._primary_reads if primary else self._replica_reads
        with translate_database_errors():
            async with ReadSession(engine, expire_on_commit=False, autoflush=False) as session:
                yield session

    @asynccontextmanager
    async def long_read(self, *, seconds: float) -> AsyncIterator[ReadSession]:
        """Open one transaction for reads of the primary that may take `seconds` each.

        On a connection of its own, so that it keeps none of the pool from others.
        """
        with translate_database_errors():
            async with ReadSession(
                self._long_reads(seconds), expire_on_commit=False, autoflush=False
            ) as session:
                yield session

    def _long_reads(self, seconds: float) -> AsyncEngine:
        engine = self._long.get(seconds)
        if engine is None:  # kept, for the first connection of an engine asks a lot
            limits = self._settings.model_copy(update={"statement_timeout_seconds": seconds})
            engine = self._long[seconds] = service_engine(
                self._settings.database_url, limits, f"{self._name} long reads", is_pooled=False
            )
        return engine

    async def read_one(
        self, work: Callable[[ReadSession], Awaitable[T]], *, primary: bool = True
    ) -> T:
        """Run a read, a second time where the first met a connection that had died."""
        try:
            async with self.read(primary=primary) as session:
                return await work(session)
        except Unresponsive:
            raise
        except Unavailable:
            pass
        except DBAPIError as error:
            if sqlstate(error) not in _CONFLICTS:  # a replica may take a read back
                raise
        async with self.read(primary=primary) as session:
            return await work(session)

    async def transaction(self, work: Callable[[WriteSession], Awaitable[T]]) -> T:
        """Run `work` in one transaction and commit it; what it raises rolls it back.

        `work` may run several times, so it must do nothing but use its session.

        Raises:
            Unavailable: the database cannot be reached; nothing was changed.
            OutcomeUnknown: the connection was lost while committing.
            TimedOut: a statement or a wait for a lock took too long; nothing was changed.
        """
        lost_before = False
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                with translate_database_errors():
                    async with self._write_slot(), WriteSession(self._primary) as session:
                        result = await work(session)
                        await self._commit(session)
                self._publish(session.outbox)
                return result
            except (OutcomeUnknown, Unresponsive):
                raise
            except Unavailable:
                # A pooled connection may have died since it was last used, and nothing was
                # committed: once more, on a new one.
                if lost_before:
                    raise
                lost_before = True
            except DBAPIError as error:
                if sqlstate(error) not in _CONFLICTS or attempt == MAX_ATTEMPTS:
                    raise
                metrics.TRANSACTION_RETRIES.inc()
                await asyncio.sleep(random.uniform(0, RETRY_SECONDS * 2 ** (attempt - 1)))  # noqa: S311
        raise AssertionError

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
            await session.commit()
        except (DBAPIError, OSError, TimeoutError) as error:
            if _is_unavailable(error) or isinstance(error, TimeoutError):
                raise OutcomeUnknown from error
            raise

    async def dispose(self) -> None:
        """Close every connection; on the loop that opened them."""
        await self._primary.dispose()
        if self.has_replica:
            await self._replica.dispose()
        for engine in self._long.values():
            await engine.dispose()

    async def ping(self) -> bool:
        """Whether the primary answers a new connection within `PROBE_SECONDS`, twice at most."""
        try:
            probe = probe_engine(self._settings, name=f"{self._name} probe", seconds=PROBE_SECONDS)
            with translate_database_errors():
                async with probe.connect() as connection:
                    await connection.execute(text("SELECT 1"))
        except (SegmentQLError, OSError):
            return False
        return True

    def pool_in_use(self) -> int:
        """Connections checked out now, of the primary's pool."""
        return int(self._primary.pool.checkedout())  # type: ignore[attr-defined]


# The planner's way of guessing: rows a page when last analyzed, times the pages there are now.
_ABOUT: Final = """
SELECT CASE WHEN counted < {limit} THEN counted ELSE greatest(counted, estimated) END
FROM (
    SELECT (SELECT count(*) FROM (SELECT FROM {table} LIMIT {limit}) AS first) AS counted,
        CAST(reltuples / greatest(relpages, 1) * pg_relation_size(oid)
            / CAST(current_setting('block_size') AS integer) AS bigint) AS estimated
    FROM pg_class WHERE oid = CAST('{table}' AS regclass)
) AS about
"""


async def estimate_row_count(session: ReadSession, table: Literal["users", "memberships"]) -> int:
    """Return the number of rows of a table.

    The number is exact up to `EXACT_COUNT_LIMIT`, and the planner's estimate beyond.
    """
    statement = text(_ABOUT.format(table=table, limit=EXACT_COUNT_LIMIT))
    return int((await session.execute(statement)).scalar_one())


async def copy_csv(
    session: ReadSession,
    statement: str,
    arguments: Sequence[object],
    write: Callable[[bytes], Awaitable[None]],
) -> int:
    """Have PostgreSQL write a SELECT's rows as CSV with a header; how many rows it was.

    `statement` takes its arguments as asyncpg does, `$1` and so on. `write` is awaited for each
    chunk, and holds up the database meanwhile. Where this fails the session is of no use any more.

    Raises:
        Unavailable: the database went away.
        TimedOut: it took longer than the session's statements may.
    """
    connection = await session.connection()
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None  # noqa: S101 - it was connected by the line before
    try:
        status: str = await driver.copy_from_query(
            statement, *arguments, output=write, format="csv", header=True
        )
    except BaseException as error:
        is_lost = driver.is_closed()
        # Mid-way through a COPY it takes no rollback, whose failure would hide this one.
        driver.terminate()
        await session.invalidate()
        code = error.sqlstate if isinstance(error, asyncpg.PostgresError) else None
        if code in {_QUERY_CANCELED, _LOCK_NOT_AVAILABLE} or isinstance(error, TimeoutError):
            raise TimedOut from error
        if is_lost or (code or "").startswith(_UNAVAILABLE_CLASSES):
            raise Unavailable from error
        raise
    return int(status.rpartition(" ")[2])


def sqlstate(error: DBAPIError) -> str | None:
    """PostgreSQL's code for what went wrong; None where it never came to say."""
    return getattr(error.orig, "sqlstate", None)


@contextmanager
def translate_database_errors() -> Iterator[None]:
    """Turn a driver's faults that are nobody's mistake into `Unavailable` and `TimedOut`."""
    try:
        yield
    except DBAPIError as error:
        if sqlstate(error) in {_QUERY_CANCELED, _LOCK_NOT_AVAILABLE}:
            raise TimedOut from error
        if _is_unavailable(error):
            raise Unavailable from error
        raise
    except (PoolTimeoutError, TimeoutError) as error:
        # Ours, not the server's: it would have cancelled the statement before.
        raise Unresponsive from error
    except OSError as error:
        raise Unavailable from error


def _is_unavailable(error: BaseException) -> bool:
    if not isinstance(error, DBAPIError):
        return isinstance(error, OSError) and not isinstance(error, TimeoutError)
    code = sqlstate(error)
    if code is None:
        cause = driver_error(error)
        return error.connection_invalidated or isinstance(
            # Of several hosts none is what the URL's target_session_attrs wants.
            cause,
            asyncpg.TargetServerAttributeNotMatched,
        )
    return code.startswith(_UNAVAILABLE_CLASSES)
