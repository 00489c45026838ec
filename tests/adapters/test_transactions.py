"""Statements in transactions behave like statements that SQLAlchemy executes."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

import pytest
from sqlalchemy import BigInteger, Executable, literal_column, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from segmentql.adapters.database import Database
from segmentql.adapters.database_errors import sqlstate
from segmentql.adapters.sessions import WriteSession
from tests.adapters.test_autocommit import STATEMENTS
from tests.conftest import Sql, recorded_statements, until
from tests.pooler import NEEDS_DIRECT_SESSION
from tests.timeline import make_users

INSERT = text("INSERT INTO users (id, created_at) VALUES (:id, now())")
TRANSACTION_ID = "CAST(CAST(pg_current_xact_id() AS text) AS bigint)"
TEXT = text(f"SELECT {TRANSACTION_ID}")


async def pid(session: WriteSession) -> int:
    return int(await session.scalar(text("SELECT pg_backend_pid()")))


@pytest.mark.parametrize("sql_text", STATEMENTS)
async def test_results_equal_those_of_sqlalchemy(
    sql: Sql, database: Database, sql_text: str
) -> None:
    await make_users(sql, 1, 2)
    values: Mapping[str, object] = STATEMENTS[sql_text]

    async def work(session: WriteSession) -> None:
        rows = (await session.execute(text(sql_text), values)).all()
        expected = (await session.connection().execute(text(sql_text), dict(values))).all()
        assert rows == expected
        assert [row._mapping for row in rows] == [row._mapping for row in expected]

    await database.transaction(work)


async def test_core_statements_run_in_the_same_transaction(database: Database) -> None:
    core: Executable = select(literal_column(TRANSACTION_ID, BigInteger))
    orders: list[list[Executable]] = [[core, TEXT], [TEXT, core]]

    async def work(session: WriteSession, statements: Sequence[Executable]) -> list[int]:
        return [int(await session.scalar(statement)) for statement in statements]

    for order in orders:
        with recorded_statements() as statements:
            ids = await database.transaction(partial(work, statements=order))
        assert ids[0] == ids[1]
        assert len(statements) == 2
    assert database.pool_in_use() == 0


async def test_affected_rows_are_counted(sql: Sql, database: Database) -> None:
    await make_users(sql, 1, 2)
    update = text("UPDATE users SET created_at = now() WHERE id > :id")
    assert (
        await database.transaction(lambda session: session.count_affected(update, {"id": 1})) == 1
    )


async def test_transaction_without_statements_commits(database: Database) -> None:
    async def work(_: WriteSession) -> int:
        return 42

    assert await database.transaction(work) == 42
    assert database.pool_in_use() == 0


async def test_failed_statement_rolls_back_and_keeps_its_connection(
    sql: Sql, database: Database
) -> None:
    first = await database.transaction(pid)

    async def work(session: WriteSession) -> None:
        await session.execute(INSERT, {"id": 1})
        await session.execute(INSERT, {"id": 1})

    with pytest.raises(IntegrityError, match="pk_users") as raised:
        await database.transaction(work)
    assert sqlstate(raised.value) == "23505"
    assert await sql.fetchval("SELECT count(*) FROM users") == 0
    assert await database.transaction(pid) == first


async def test_error_of_a_commit_rolls_back_and_keeps_its_connection(
    sql: Sql, database: Database
) -> None:
    await sql.execute("""
        CREATE TABLE deferred (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
        GRANT ALL ON deferred TO PUBLIC
    """)
    try:
        first = await database.transaction(pid)
        insert = text("INSERT INTO deferred VALUES (1), (1)")
        with pytest.raises(IntegrityError, match="deferred_id_key"):
            await database.transaction(lambda session: session.execute(insert))
        assert await sql.fetchval("SELECT count(*) FROM deferred") == 0
        assert await database.transaction(pid) == first
        assert database.pool_in_use() == 0
    finally:
        await sql.execute("DROP TABLE deferred")


async def test_error_of_a_value_names_the_statement(database: Database) -> None:
    with pytest.raises(DBAPIError, match="invalid input for query argument") as raised:
        await database.transaction(
            lambda session: session.execute(text("SELECT CAST(:a AS int)"), {"a": "hunter"})
        )
    assert "[SQL: SELECT CAST($1 AS int)]" in str(raised.value)


async def test_cancelled_transaction_closes_its_connection(sql: Sql, database: Database) -> None:
    first = await database.transaction(pid)

    async def work(session: WriteSession) -> None:
        await session.execute(INSERT, {"id": 1})
        await session.execute(text("SELECT pg_sleep(60)"))

    transaction = asyncio.create_task(database.transaction(work))

    async def is_running() -> bool:
        query = "SELECT query FROM pg_stat_activity WHERE pid = $1 AND state = 'active'"
        return bool(await sql.fetchval(query, first) == "SELECT pg_sleep(60)")

    await until(is_running)
    transaction.cancel()
    with pytest.raises(asyncio.CancelledError):
        await transaction
    assert database.pool_in_use() == 0

    async def has_ended() -> bool:
        return not await sql.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", first)

    await until(has_ended)
    assert await sql.fetchval("SELECT count(*) FROM users") == 0
    assert await database.transaction(pid) != first


@NEEDS_DIRECT_SESSION
async def test_cancelled_commit_returns_no_open_transaction(sql: Sql, database: Database) -> None:
    """A trigger delays the commit, which is cancelled in the meantime."""
    await sql.execute("""
        CREATE TABLE slow (id int);
        GRANT ALL ON slow TO PUBLIC;
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_sleep(60); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION wait();
    """)
    try:
        first = await database.transaction(pid)
        insert = text("INSERT INTO slow VALUES (1)")
        transaction = asyncio.create_task(
            database.transaction(lambda session: session.execute(insert))
        )

        async def is_committing() -> bool:
            query = "SELECT query FROM pg_stat_activity WHERE pid = $1 AND state = 'active'"
            return bool(await sql.fetchval(query, first) == "COMMIT;")

        await until(is_committing)
        transaction.cancel()
        with pytest.raises(asyncio.CancelledError):
            await transaction
        assert database.pool_in_use() == 0
        assert await database.transaction(pid) != first
    finally:
        await sql.execute("DROP TABLE slow; DROP FUNCTION wait")
