"""Reads in AUTOCOMMIT mode behave like statements that SQLAlchemy executes."""

import asyncio
from collections.abc import Mapping

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from segmentql.adapters.database import Database
from segmentql.adapters.database_errors import sqlstate
from segmentql.adapters.sessions import ReadSession
from segmentql.settings import Settings
from tests.conftest import Sql, recorded_statements, until
from tests.pooler import NEEDS_DIRECT_SESSION
from tests.timeline import make_users

STATEMENTS: Mapping[str, Mapping[str, object]] = {
    "SELECT 1 AS a, 'x' AS b": {},
    "SELECT CAST(:a AS int) AS a, CAST(:b AS text) AS b, CAST(:a AS int) + 1 AS c": {
        "b": "text",
        "a": 7,
    },
    "SELECT number AS a FROM generate_series(1, :rows) AS number": {"rows": 300},
    "SELECT id AS a FROM users WHERE id = ANY(:ids)": {"ids": [1, 2, 99]},
    "SELECT id AS a FROM users WHERE id = 99": {},
    r"SELECT '\:name' AS a, 10 % 3 AS b, '100%' AS c": {},
    "SELECT CAST('{\"a\": [1, null]}' AS jsonb) AS a, CAST('1.50' AS numeric) AS b": {},
    "SELECT NULL AS a, now() - now() AS b, ARRAY[true, NULL] AS c": {},
}


async def pid(session: ReadSession) -> int:
    return int(await session.scalar(text("SELECT pg_backend_pid()")))


@pytest.mark.parametrize("sql_text", STATEMENTS)
async def test_results_equal_those_of_sqlalchemy(
    sql: Sql, database: Database, sql_text: str
) -> None:
    await make_users(sql, 1, 2)
    values = STATEMENTS[sql_text]
    statement = text(sql_text)
    async with database.read() as session:
        connection = await session.connection()
        for _ in range(2):
            rows = (await session.execute(statement, values)).all()
            expected = (await connection.execute(statement, dict(values))).all()
            assert rows == expected
            assert [row._mapping for row in rows] == [row._mapping for row in expected]
            scalars = (await session.execute(statement, values)).scalars().all()
            assert scalars == [row.a for row in expected]


async def test_statements_of_a_session_share_a_connection(database: Database) -> None:
    async with database.read() as session:
        first = await pid(session)
        assert await pid(session) == first
        assert database.pool_in_use() == 1
    assert database.pool_in_use() == 0
    async with database.read() as session:
        assert await pid(session) == first


async def test_each_statement_is_visible_to_listeners_of_sqlalchemy(database: Database) -> None:
    with recorded_statements() as statements:
        async with database.read() as session:
            await session.execute(text("SELECT CAST(:a AS int)"), {"a": 1})
    assert statements == ["SELECT CAST($1 AS int)"]


async def test_error_of_postgresql_is_raised_as_sqlalchemy_raises_it(database: Database) -> None:
    statement = text("SELECT CAST(:secret AS text) FROM missing")
    async with database.read() as session:
        with pytest.raises(ProgrammingError, match="missing") as raised:
            await session.execute(statement, {"secret": "hunter2"})
        assert sqlstate(raised.value) == "42P01"
        assert "hunter2" not in str(raised.value)
        assert await session.scalar(text("SELECT 42")) == 42
    assert database.pool_in_use() == 0


async def test_invalid_value_is_raised_as_sqlalchemy_raises_it(database: Database) -> None:
    async with database.read() as session:
        with pytest.raises(DBAPIError, match="invalid input for query argument"):
            await session.execute(text("SELECT CAST(:a AS int)"), {"a": "text"})


@NEEDS_DIRECT_SESSION
async def test_cancelled_read_closes_its_connection(sql: Sql, database: Database) -> None:
    async with database.read() as session:
        first = await pid(session)
    read = asyncio.create_task(
        database.read_one(lambda session: session.execute(text("SELECT pg_sleep(60)")))
    )

    async def is_running() -> bool:
        query = "SELECT query FROM pg_stat_activity WHERE pid = $1 AND state = 'active'"
        return bool(await sql.fetchval(query, first) == "SELECT pg_sleep(60)")

    await until(is_running)
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read
    assert database.pool_in_use() == 0

    async def has_ended() -> bool:
        return not await sql.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", first)

    await until(has_ended)
    async with database.read() as session:
        assert await pid(session) != first


@NEEDS_DIRECT_SESSION
async def test_all_dead_pooled_connections_are_replaced_after_one_error(
    sql: Sql, database: Database
) -> None:
    both = asyncio.Barrier(2)

    async def wait_for_other(session: ReadSession) -> int:
        found = await pid(session)
        await both.wait()
        return found

    pids = await asyncio.gather(*(database.read_one(wait_for_other) for _ in range(2)))
    assert len(set(pids)) == 2
    for dead in pids:
        await sql.execute("SELECT pg_terminate_backend($1, 10000)", dead)
    replaced = await asyncio.gather(*(database.read_one(wait_for_other) for _ in range(2)))
    assert not set(replaced) & set(pids)


async def test_read_survives_a_change_of_its_result_type(sql: Sql, database: Database) -> None:
    await sql.execute("CREATE TABLE changing AS SELECT 1 AS a; GRANT SELECT ON changing TO PUBLIC")
    try:
        statement = text("SELECT * FROM changing")
        async with database.read() as session:
            assert (await session.execute(statement)).one()._mapping == {"a": 1}
            await sql.execute("ALTER TABLE changing ALTER a TYPE text, ADD b int DEFAULT 2")
            assert (await session.execute(statement)).one()._mapping == {"a": "1", "b": 2}
    finally:
        await sql.execute("DROP TABLE changing")


async def test_read_waits_for_a_connection_of_a_full_pool(settings: Settings, sql: Sql) -> None:
    settings = settings.model_copy(update={"database_pool_size": 1})
    database = Database(settings, name="tests", publish=lambda _: None)
    try:
        async with database.read() as session:
            first = await pid(session)
            waiting = asyncio.create_task(database.read_one(pid))
            await asyncio.sleep(0.05)
            assert not waiting.done()
        assert await waiting == first
    finally:
        await database.dispose()


async def test_session_cannot_run_two_statements_at_once(database: Database) -> None:
    async with database.read() as session:
        await pid(session)
        with pytest.raises(DBAPIError, match="another operation is in progress"):
            await asyncio.gather(*(session.execute(text("SELECT pg_sleep(0.1)")) for _ in range(2)))
