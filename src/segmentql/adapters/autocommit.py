"""Statements at a third of the CPU time of SQLAlchemy's execution, and reads without a transaction.

SQLAlchemy provides the pooled connection, the SQL text, the events, the errors and the results.
asyncpg executes the statement, so that no greenlet, cursor or execution context is necessary.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NoReturn, TypeAlias

from sqlalchemy import Connection, Engine, Result, TextClause
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.util import greenlet_spawn

from segmentql.adapters.connection_pool import MeasuredPool

DriverRow: TypeAlias = Sequence[Any]
"""A row of asyncpg, which also has the names of its columns."""

Rows: TypeAlias = Result[*tuple[Any, ...]]
"""The result of any statement."""

_DIALECT: Final = PGDialect_asyncpg()  # type: ignore[no-untyped-call]

_NO_ROWS: Final = SimpleResultMetaData([""])
"""The metadata of a result without rows, whose columns asyncpg does not return."""

MAX_COMPILED_STATEMENTS: Final = 1_000


class CompiledText:
    """A statement in asyncpg's form, and the metadata of its results."""

    def __init__(self, statement: TextClause) -> None:
        compiled = statement.compile(dialect=_DIALECT)
        self.sql = str(compiled)
        self._names: Sequence[str] = compiled.positiontup or ()
        self._columns: list[str] = []
        self._metadata = _NO_ROWS

    def arguments(self, values: Mapping[str, object] | None) -> list[object]:
        """Return the values of the parameters in the order of `sql`."""
        return [values[name] for name in self._names] if values else []

    def result(self, rows: Sequence[DriverRow]) -> Rows:
        """Return the result of an execution."""
        if rows:
            columns = list(rows[0].keys())  # type: ignore[attr-defined]
            if columns != self._columns:
                self._columns = columns
                self._metadata = SimpleResultMetaData(columns)
        return IteratorResult(self._metadata, iter(rows))


compile_text = lru_cache(MAX_COMPILED_STATEMENTS)(CompiledText)


class AutocommitConnection:
    """A pooled connection for reads, which is checked out at the first statement."""

    def __init__(self, engine: Engine) -> None:
        """Create the connection.

        Args:
            engine: An engine with the isolation level AUTOCOMMIT.
        """
        self._engine = engine
        self._connection: Connection | None = None

    async def execute(
        self, statement: TextClause, values: Mapping[str, object] | None = None
    ) -> Rows:
        """Execute a statement with named parameters."""
        return compile_text(statement).result(await self.fetch(statement, values))

    async def fetch(
        self, statement: TextClause, values: Mapping[str, object] | None = None
    ) -> Sequence[DriverRow]:
        """Execute a statement with named parameters; return its rows as asyncpg does.

        Raises:
            DBAPIError, TimeoutError, OSError: The errors that SQLAlchemy raises.
        """
        if self._connection is None:
            self._connection = await connect(self._engine)
        connection = self._connection
        try:
            return await fetch_rows(connection, compile_text(statement), values)
        except BaseException:
            self._connection = None
            connection.close()
            raise

    def close(self) -> None:
        """Return the connection to the pool."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def array_parameter(name: str, element_type: str) -> str:
    """Return the SQL of an array parameter whose length the planner ignores.

    PostgreSQL plans a statement again in each execution if a plan for the values seems cheaper than
    a generic plan, which is for arrays of 10 elements. For a shorter array it always does, and
    planning takes longer than the execution. A sub-select hides the length, so that PostgreSQL
    uses the generic plan from the sixth execution on.

    Use it only for large tables. On a small one, a plan for 10 elements can scan all rows.
    """
    return f"CAST((SELECT CAST(:{name} AS {element_type}[])) AS {element_type}[])"


async def connect(engine: Engine) -> Connection:
    """Return a connection of an engine, without a greenlet if the pool has an idle one."""
    pool = engine.pool
    idle = pool.connect_if_idle() if isinstance(pool, MeasuredPool) else None
    return Connection(engine, idle) if idle else await greenlet_spawn(engine.connect)


async def fetch_rows(
    connection: Connection, compiled: CompiledText, values: Mapping[str, object] | None
) -> Sequence[DriverRow]:
    """Execute a statement by asyncpg, with SQLAlchemy's events and errors."""
    sql, arguments = compiled.sql, compiled.arguments(values)
    event = (connection, None, sql, arguments, None, False)
    connection.dispatch.before_cursor_execute(*event)
    try:
        driver: Any = connection.connection.driver_connection
        rows: Sequence[DriverRow] = await driver.fetch(sql, *arguments)
    except BaseException as error:
        await greenlet_spawn(raise_as_sqlalchemy, connection, sql, error)
        raise
    connection.dispatch.after_cursor_execute(*event)
    return rows


def raise_as_sqlalchemy(connection: Connection, sql: str | None, error: BaseException) -> NoReturn:
    """Raise an error of asyncpg as SQLAlchemy does, which also invalidates lost connections."""
    try:
        if isinstance(error, Exception):
            adapted: Any = connection.connection.dbapi_connection
            adapted._handle_exception(error)
        raise error
    except BaseException as translated:  # noqa: BLE001 - the last line raises it
        is_driver_error = isinstance(translated, connection.dialect.loaded_dbapi.Error)
        statement = sql if is_driver_error else None  # other errors pass unchanged
        connection._handle_dbapi_exception(translated, statement, None, None, None)
