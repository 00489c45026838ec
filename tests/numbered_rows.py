"""Numbered rows that are stored in consecutive files of the write-ahead log."""

from tests.conftest import Sql


async def create_numbers(sql: Sql) -> None:
    await sql.execute("CREATE TABLE numbers (number int)")


async def store_row(sql: Sql, number: int) -> str:
    """Store a row, and begin a new file of the log; return the name of the file with the row."""
    # With a timeout, because a commit may wait for a standby.
    await sql.execute("INSERT INTO numbers VALUES ($1)", number, timeout=30)
    name: str = await sql.fetchval("SELECT pg_walfile_name(pg_switch_wal())")
    return name


async def numbers(sql: Sql) -> list[int]:
    return [row[0] for row in await sql.fetch("SELECT number FROM numbers ORDER BY number")]


async def set_configuration(sql: Sql, **values: str) -> None:
    for name, value in values.items():
        await sql.execute(f"ALTER SYSTEM SET {name} = '{value}'")
