"""Transactions whose text statements asyncpg executes, as in `autocommit`.

SQLAlchemy's connection and its adapter of asyncpg keep the state of the transaction. So statements
of both ways of execution run in the same transaction.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Executable, TextClause
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import greenlet_spawn

from segmentql.adapters.autocommit import (
    DriverRow,
    Rows,
    compile_text,
    fetch_rows,
    raise_as_sqlalchemy,
)
from segmentql.adapters.connection_pool import MeasuredPool
from segmentql.tracing.calls import now_ns, record_statement


class TransactionConnection:
    """A connection in a transaction, which begins at its first statement."""

    def __init__(self, engine: AsyncEngine, connection: Connection) -> None:
        """Create the connection.

        Args:
            engine: The engine.
            connection: A connection of the engine without a transaction.
        """
        self._engine = engine
        self._connection = connection

    async def execute(
        self, statement: Executable, values: Mapping[str, object] | None = None
    ) -> Rows:
        """Execute a statement with named parameters."""
        if isinstance(statement, TextClause):
            return compile_text(statement).result(await self.fetch(statement, values))
        return await self.connection().execute(statement, values)

    async def fetch(
        self, statement: TextClause, values: Mapping[str, object] | None = None
    ) -> Sequence[DriverRow]:
        """Execute a statement with named parameters; return its rows as asyncpg does.

        Raises:
            DBAPIError, TimeoutError, OSError: The errors that SQLAlchemy raises.
        """
        adapted: Any = self._connection.connection.dbapi_connection
        if adapted._transaction is None:
            await self._begin(adapted)
        return await fetch_rows(self._connection, compile_text(statement), values)

    async def scalar(
        self, statement: Executable, values: Mapping[str, object] | None = None
    ) -> Any:
        """Execute a statement; return the first column of the first row, or None without rows."""
        return (await self.execute(statement, values)).scalar()

    async def count_affected(
        self, statement: Executable, values: Mapping[str, object] | None = None
    ) -> int:
        """Execute a statement; return the number of rows that it inserted, updated or deleted."""
        return int((await self.connection().execute(statement, values)).rowcount)

    def connection(self) -> AsyncConnection:
        """Return SQLAlchemy's form of this connection."""
        return AsyncConnection(self._engine, self._connection)

    @property
    def closed(self) -> bool:
        return self._connection.closed

    async def commit_and_close(self) -> None:
        """Commit the transaction, and return the connection to the pool.

        Raises:
            DBAPIError, TimeoutError, OSError: The errors that SQLAlchemy raises.
        """
        connection = self._connection
        adapted: Any = connection.connection.dbapi_connection
        transaction, adapted._transaction = adapted._transaction, None
        started_ns = now_ns()
        try:
            connection.commit()  # without a transaction of the adapter it sends nothing
            if transaction is not None:
                await transaction.commit()
                record_statement("COMMIT", started_ns, connection.engine.url.database or "")
        except BaseException as error:
            record_statement("COMMIT", started_ns, connection.engine.url.database or "", error)
            try:
                await greenlet_spawn(raise_as_sqlalchemy, connection, None, error)
            finally:
                if adapted.driver_connection.is_in_transaction():
                    connection.invalidate()
            raise
        if isinstance(connection.engine.pool, MeasuredPool):
            connection.close()
        else:  # closes the connection to PostgreSQL
            await greenlet_spawn(connection.close)

    async def close(self) -> None:
        """Roll the transaction back, and return the connection to the pool."""
        await greenlet_spawn(self._connection.close)

    async def _begin(self, adapted: Any) -> None:
        connection = self._connection
        try:
            if connection.engine.dispatch.begin:  # a listener can execute statements
                await greenlet_spawn(connection.begin)
            else:
                connection.begin()
            if adapted._transaction is None:
                await adapted._start_transaction()
        except BaseException as error:
            await greenlet_spawn(raise_as_sqlalchemy, connection, None, error)
            raise
