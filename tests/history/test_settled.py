"""The settled position waits for the transactions that may still commit earlier rows, and no other.

The reads run as the service's role, the writers on their own connections.
"""

import asyncio

import asyncpg
import pytest

from segmentql.adapters.database import Database
from segmentql.history.settled import (
    BEFORE_FIRST_ROW,
    CursorState,
    HistoryCursor,
    LastPosition,
    check_cursor,
    read_holders,
    read_last_position,
    read_newest_row,
    settle,
)
from segmentql.local import LocalServers, with_database
from tests.conftest import Sql, make_database, until
from tests.history.writers import Connect, begin_join, join, position_of
from tests.timeline import HOUR, add_membership


async def settled_position(database: Database, *, seconds: float = 0) -> int | None:
    async with database.read() as session:
        cursor = await settle(session, seconds=seconds)
    return cursor.position if cursor else None


async def begin(database: Database) -> tuple[LastPosition, frozenset[str]]:
    async with database.read() as session:
        last = await read_last_position(session)
        return last, await read_holders(session, last)


async def remaining(
    database: Database, last: LastPosition, holders: frozenset[str]
) -> frozenset[str]:
    async with database.read() as session:
        return await read_holders(session, last, among=holders)


async def test_position_of_an_empty_history_is_zero(database: Database) -> None:
    async with database.read() as session:
        assert await read_last_position(session) == LastPosition(
            0, (await read_last_position(session)).incarnation
        )
        assert await settle(session, seconds=0) == BEFORE_FIRST_ROW


async def test_committed_row_is_settled(database: Database, sql: Sql, segment_id: int) -> None:
    await join(sql, 1, segment_id)
    assert await settled_position(database) == await position_of(sql, 1)


async def test_row_after_an_uncommitted_row_is_not_settled(
    database: Database, sql: Sql, connect: Connect, segment_id: int
) -> None:
    writer = await connect()
    await begin_join(writer, 1, segment_id)
    await join(sql, 2, segment_id)
    assert await position_of(writer, 1) < await position_of(sql, 2)
    last, holders = await begin(database)
    assert last.position == await position_of(sql, 2)
    assert len(holders) == 1
    assert await settled_position(database, seconds=0.1) is None
    await writer.execute("COMMIT")
    assert await remaining(database, last, holders) == frozenset()
    async with database.read() as session:
        newest = await read_newest_row(session, last)
    assert newest.position == await position_of(sql, 2)


async def test_settling_waits_for_the_end_of_a_transaction(
    database: Database, sql: Sql, connect: Connect, segment_id: int
) -> None:
    writer = await connect()
    await begin_join(writer, 1, segment_id)
    settling = asyncio.create_task(settled_position(database, seconds=30))

    async def is_polling() -> bool:
        return bool(
            await sql.fetchval(
                """
                SELECT count(*) FROM pg_stat_activity
                WHERE application_name = 'tests' AND query LIKE '%virtualtransaction = ANY%'
                """
            )
        )

    await until(is_polling)
    assert not settling.done()
    await writer.execute("COMMIT")
    assert await settling == await position_of(sql, 1)


async def test_rolled_back_numbers_are_gaps(
    database: Database, sql: Sql, connect: Connect, segment_id: int
) -> None:
    await join(sql, 1, segment_id)
    writer = await connect()
    await begin_join(writer, 2, segment_id)
    last, holders = await begin(database)
    await writer.execute("ROLLBACK")
    assert await remaining(database, last, holders) == frozenset()
    assert await settled_position(database) == await position_of(sql, 1) < last.position


async def test_transaction_without_a_position_delays_until_its_end(
    database: Database, connect: Connect, segment_id: int
) -> None:
    """The trigger locks history even if it inserts no row."""
    writer = await connect()
    transaction = writer.transaction()
    await transaction.start()
    await writer.execute("DELETE FROM memberships")
    assert await settled_position(database) is None
    await transaction.commit()
    assert await settled_position(database) == 0


async def test_transaction_that_only_locked_a_user_is_no_holder(
    database: Database, sql: Sql, connect: Connect, segment_id: int
) -> None:
    """It has a transaction id, but will take a later position."""
    writer = await connect()
    async with writer.transaction():
        await writer.execute("SELECT FROM users WHERE id = 1 FOR NO KEY UPDATE")
        await join(sql, 2, segment_id)
        settled = await settled_position(database)
        assert settled == await position_of(sql, 2)
        await join(writer, 1, segment_id)
        assert await position_of(writer, 1) > settled


async def test_next_transaction_of_a_connection_is_another_holder(
    database: Database, connect: Connect, segment_id: int
) -> None:
    writer = await connect()
    await begin_join(writer, 1, segment_id)
    last, holders = await begin(database)
    await writer.execute("COMMIT")
    async with writer.transaction():
        await join(writer, 2, segment_id)
        assert await remaining(database, last, holders) == frozenset()


async def test_later_transactions_do_not_delay(
    database: Database, connect: Connect, segment_id: int
) -> None:
    first, second = await connect(), await connect()
    await begin_join(first, 1, segment_id)
    last, holders = await begin(database)
    async with second.transaction():
        await join(second, 2, segment_id)
        assert await remaining(database, last, holders) == holders
        await first.execute("COMMIT")
        assert await remaining(database, last, holders) == frozenset()


async def test_waiting_table_lock_does_not_hide_a_holder(
    database: Database, sql: Sql, connect: Connect, segment_id: int
) -> None:
    """A stronger lock moves the weak locks of all backends to the shared lock table."""
    fast_path = "SELECT count(*) FROM pg_locks WHERE relation = 'history'::regclass AND fastpath"
    writer = await connect()
    await begin_join(writer, 1, segment_id)
    last, holders = await begin(database)
    assert await sql.fetchval(fast_path) == len(holders) == 1
    locking = asyncio.create_task(sql.execute("BEGIN; LOCK TABLE history IN SHARE MODE; COMMIT"))

    async def has_moved() -> bool:
        async with database.read() as session:
            connection = await session.connection()
            return bool((await connection.exec_driver_sql(fast_path)).scalar_one() == 0)

    await until(has_moved)
    assert await remaining(database, last, holders) == holders
    assert (await begin(database))[1] == holders
    await writer.execute("COMMIT")
    await locking
    assert await remaining(database, last, holders) == frozenset()


async def test_rolled_back_savepoint_is_no_holder(
    database: Database, sql: Sql, connect: Connect, segment_id: int
) -> None:
    """Its locks are released together with its rows."""
    writer = await connect()
    async with writer.transaction():
        savepoint = writer.transaction()
        await savepoint.start()
        await join(writer, 1, segment_id)
        last, holders = await begin(database)
        assert len(holders) == 1
        await savepoint.rollback()
        assert await remaining(database, last, holders) == frozenset()
        assert await settled_position(database) == 0
        async with writer.transaction():
            await join(writer, 1, segment_id)
        assert await position_of(writer, 1) > last.position
        assert len((await begin(database))[1]) == 1  # a released savepoint keeps its lock


async def test_transaction_of_another_database_is_no_holder(
    database: Database, servers: LocalServers, template: str, segment_id: int
) -> None:
    await make_database(servers, "settled_other", template=template)
    other = await asyncpg.connect(with_database(servers.superuser_url, "settled_other"))
    ids = "SELECT 'history'::regclass::oid"
    async with database.read() as session:
        connection = await session.connection()
        own_id = (await connection.exec_driver_sql(ids)).scalar_one()
    try:
        async with other.transaction():
            await other.execute("DELETE FROM memberships")
            assert await other.fetchval(ids) == own_id
            assert (await begin(database))[1] == frozenset()
    finally:
        await other.close()


async def test_caller_does_not_wait_for_itself(
    database: Database, sql: Sql, segment_id: int
) -> None:
    await join(sql, 1, segment_id)
    async with database.long_read(seconds=5) as session:
        connection = await session.connection()
        await connection.exec_driver_sql("DELETE FROM memberships WHERE user_id = 0")
        assert await settle(session, seconds=0) is not None


async def test_transaction_id_does_not_order_the_changes_of_a_user(
    sql: Sql, connect: Connect, segment_id: int
) -> None:
    """A transaction gets its id at its first lock, before it waits for the user."""
    early, late = await connect(), await connect()
    early_transaction = early.transaction()
    await early_transaction.start()
    await early.execute("SELECT FROM users WHERE id = 2 FOR NO KEY UPDATE")
    async with late.transaction():
        await late.execute("SELECT FROM users WHERE id = 1 FOR NO KEY UPDATE")
        await join(late, 1, segment_id)
    await early.execute("SELECT FROM users WHERE id = 1 FOR NO KEY UPDATE")
    await early.execute("DELETE FROM memberships WHERE user_id = 1")
    await early_transaction.commit()
    by_id = "SELECT operation::text FROM history ORDER BY xmin::text::bigint"
    by_position = "SELECT operation::text FROM history ORDER BY position"
    assert [row[0] for row in await sql.fetch(by_id)] == ["LEFT", "JOINED"]
    assert [row[0] for row in await sql.fetch(by_position)] == ["JOINED", "LEFT"]


async def cursor_state(database: Database, cursor: HistoryCursor) -> CursorState:
    async with database.read() as session:
        return await check_cursor(session, cursor)


async def newest_cursor(database: Database) -> HistoryCursor:
    async with database.read() as session:
        cursor = await settle(session, seconds=0)
    assert cursor is not None
    return cursor


async def test_cursor_of_a_stored_row_is_valid(
    database: Database, sql: Sql, segment_id: int
) -> None:
    await join(sql, 1, segment_id)
    cursor = await newest_cursor(database)
    assert await cursor_state(database, cursor) == CursorState.VALID
    await sql.execute("UPDATE history SET actor = 'ada', cause = 'ROLLOUT'")
    await join(sql, 2, segment_id)
    assert await cursor_state(database, cursor) == CursorState.VALID
    assert await cursor_state(database, BEFORE_FIRST_ROW) == CursorState.VALID


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM history WHERE user_id = 2",
        "DELETE FROM history",
        "UPDATE history SET membership_id = membership_id + 1",
        "UPDATE history SET operation = 'LEFT'",
        "UPDATE history SET recorded_at = recorded_at + interval '1 microsecond'",
    ],
)
async def test_cursor_of_a_lost_or_different_row_is_reset(
    database: Database, sql: Sql, segment_id: int, change: str
) -> None:
    await join(sql, 1, segment_id)
    await join(sql, 2, segment_id)
    cursor = await newest_cursor(database)
    await sql.execute(change)
    assert await cursor_state(database, cursor) == CursorState.RESET


async def test_cursor_older_than_every_stored_row_has_expired(
    database: Database, sql: Sql, segment_id: int
) -> None:
    await add_membership(sql, 1, segment_id, joined_ago=2 * HOUR)
    cursor = await newest_cursor(database)
    await join(sql, 2, segment_id)
    newest = await newest_cursor(database)
    await sql.execute("DELETE FROM history WHERE user_id = 1")
    assert await cursor_state(database, cursor) == CursorState.EXPIRED
    assert await cursor_state(database, newest) == CursorState.VALID
