"""COPY between PostgreSQL and this process, in the transaction of a session."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from segmentql.adapters.database_errors import TIMEOUT_CODES, UNAVAILABLE_CLASSES
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.errors import TimedOut, Unavailable


async def copy_csv(
    session: ReadSession,
    statement: str,
    arguments: Sequence[object],
    write: Callable[[bytes], Awaitable[None]],
) -> int:
    """Write the rows of a SELECT as CSV with a header; return their number.

    After an error, the session cannot be used any more.

    Args:
        session: The session.
        statement: A SELECT with parameters in asyncpg's form, such as `$1`.
        arguments: The values of the parameters.
        write: The function that receives each chunk. The database waits until it returns.

    Raises:
        Unavailable: The connection was lost.
        TimedOut: The statement exceeded the session's timeout.
    """
    connection = await session.connection()
    driver = await _driver_connection(connection)
    try:
        status: str = await driver.copy_from_query(
            statement, *arguments, output=write, format="csv", header=True
        )
    except BaseException as error:
        await _end_copy(connection, driver, error)
        raise
    return int(status.rpartition(" ")[2])


async def copy_records(
    session: WriteSession,
    table: str,
    columns: Sequence[str],
    records: Sequence[tuple[object, ...]],
) -> None:
    """Insert rows by COPY, in the session's transaction.

    The session must have executed a statement before, which begins the transaction. After an error,
    the session cannot be used any more.

    Args:
        session: The session.
        table: The name of the table, without a schema.
        columns: The columns of the records.
        records: One tuple per row, in the order of `columns`.

    Raises:
        Unavailable: The connection was lost.
        TimedOut: The statement exceeded the session's timeout.
    """
    connection = session.connection()
    driver = await _driver_connection(connection)
    try:
        await driver.copy_records_to_table(table, columns=columns, records=records)
    except BaseException as error:
        await _end_copy(connection, driver, error)
        raise


async def _driver_connection(connection: AsyncConnection) -> Any:
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None  # noqa: S101 - the lines above connected it
    return driver


async def _end_copy(connection: AsyncConnection, driver: Any, error: BaseException) -> None:
    """Close the connection of a COPY that failed, and raise the error's translation if it has one.

    A rollback during a COPY fails, and its error would hide this one.
    """
    is_lost = driver.is_closed()
    driver.terminate()
    await connection.invalidate()
    code = error.sqlstate if isinstance(error, asyncpg.PostgresError) else None
    if code in TIMEOUT_CODES or isinstance(error, TimeoutError):
        raise TimedOut from error
    if is_lost or (code or "").startswith(UNAVAILABLE_CLASSES):
        raise Unavailable from error
