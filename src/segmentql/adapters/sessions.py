"""The sessions of the database: one for reads, one for transactions. `Database` opens them."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Self

from sqlalchemy import Connection, Executable, TextClause
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from segmentql.adapters.autocommit import AutocommitConnection, DriverRow, Rows
from segmentql.adapters.jobs import Message
from segmentql.adapters.transactions import TransactionConnection


class ReadSession:
    """A session for reads. Functions that write require a `WriteSession`.

    Text statements of an AUTOCOMMIT engine bypass SQLAlchemy's execution and use a connection of
    their own. So a session that executes other statements as well holds two connections.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        options = engine.get_execution_options()
        self._autocommit = (
            AutocommitConnection(engine.sync_engine)
            if options.get("isolation_level") == "AUTOCOMMIT"
            else None
        )
        self._connection: AsyncConnection | None = None

    async def execute(
        self, statement: Executable, values: Mapping[str, object] | None = None
    ) -> Rows:
        """Execute a statement."""
        if self._autocommit is not None and isinstance(statement, TextClause):
            return await self._autocommit.execute(statement, values)
        return await (await self.connection()).execute(statement, values)

    async def fetch(
        self, statement: TextClause, values: Mapping[str, object] | None = None
    ) -> Sequence[DriverRow]:
        """Execute a statement; return the rows as tuples.

        Column names are not available on every path.
        """
        if self._autocommit is not None:
            return await self._autocommit.fetch(statement, values)
        return (await self.execute(statement, values)).all()

    async def scalar(
        self, statement: Executable, values: Mapping[str, object] | None = None
    ) -> Any:
        """Execute a statement; return the first column of the first row, or None without rows."""
        return (await self.execute(statement, values)).scalar()

    async def connection(self) -> AsyncConnection:
        """Return a connection of SQLAlchemy, which the session keeps until its end."""
        if self._connection is None:
            self._connection = await self._engine.connect()
        return self._connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._autocommit is not None:
            self._autocommit.close()
        if self._connection is not None:
            await asyncio.shield(self._connection.close())


class WriteSession(TransactionConnection):
    """A connection in a transaction of `Database.transaction`, which commits it."""

    def __init__(self, engine: AsyncEngine, connection: Connection) -> None:
        super().__init__(engine, connection)
        self.outbox: list[Message] = []

    def after_commit(self, message: Message) -> None:
        """Publish a message after the commit of this transaction."""
        self.outbox.append(message)
