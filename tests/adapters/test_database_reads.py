"""Reads are single statements without a transaction."""

from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.settings import Settings
from tests.adapters.database_helpers import backend, opened, ping, store, stored
from tests.conftest import Sql
from tests.timeline import make_segment


async def test_read_is_one_statement_without_a_transaction(sql: Sql, database: Database) -> None:
    state = "SELECT state, query FROM pg_stat_activity WHERE pid = $1"
    async with database.read() as session:
        pid = await backend(session)
        row = await sql.fetchrow(state, pid)
        assert row is not None
        assert tuple(row) == ("idle", "SELECT pg_backend_pid()")
        first = (await session.execute(text("SELECT now()"))).scalar_one()
        assert (await session.execute(text("SELECT now()"))).scalar_one() > first
    row = await sql.fetchrow(state, pid)
    assert row is not None
    assert tuple(row) == ("idle", "SELECT now()")


async def test_read_sees_commits_since_its_session_began(sql: Sql, database: Database) -> None:
    async with database.read() as session:
        count = text("SELECT count(*) FROM segments")
        assert (await session.execute(count)).scalar_one() == 0
        await make_segment(sql, "A")
        assert (await session.execute(count)).scalar_one() == 1


async def test_transaction_after_a_read_on_the_same_connection(
    sql: Sql, settings: Settings
) -> None:
    database = opened(settings, database_pool_size=1)
    await database.read_one(ping)

    async def work(session: WriteSession) -> None:
        await store(session, 7)
        assert await stored(sql) == []

    await database.transaction(work)
    assert await stored(sql) == [7]
    assert await database.read_one(ping) == 42
    await database.dispose()
