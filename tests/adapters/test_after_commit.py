"""Messages are sent after the commit of their transaction, and only then."""

import asyncio

import pytest
from sqlalchemy.exc import IntegrityError

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import WriteSession
from segmentql.settings import Settings
from tests.adapters.database_helpers import ONE, TWO, at_commit, store, stored
from tests.conftest import Sql


async def test_messages_are_sent_in_order_after_the_commit(sql: Sql, settings: Settings) -> None:
    sent_at_commit: list[tuple[Message, ...]] = []
    database = Database(settings, name="tests", publish=lambda ms: sent_at_commit.append(tuple(ms)))

    async def work(session: WriteSession) -> None:
        session.after_commit(ONE)
        await store(session, 7)
        session.after_commit(TWO)
        assert sent_at_commit == []
        assert await stored(sql) == []

    await database.transaction(work)
    assert sent_at_commit == [(ONE, TWO)]
    assert await stored(sql) == [7]
    await database.dispose()


async def test_no_message_is_sent_if_the_work_raises(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    async def work(session: WriteSession) -> None:
        session.after_commit(ONE)
        await store(session, 7)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await database.transaction(work)
    assert (sent, await stored(sql)) == ([], [])


async def test_no_message_is_sent_if_the_commit_fails(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    async def work(session: WriteSession) -> None:
        session.after_commit(ONE)
        await store(session, 7)

    reject_insert = "RAISE 'not this one' USING ERRCODE = 'check_violation'"
    async with at_commit(sql, reject_insert):
        with pytest.raises(IntegrityError, match="not this one"):
            await database.transaction(work)
    assert (sent, await stored(sql)) == ([], [])


async def test_no_message_is_sent_if_the_caller_cancels(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    transaction_open = asyncio.Event()

    async def work(session: WriteSession) -> None:
        session.after_commit(ONE)
        await store(session, 7)
        transaction_open.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(database.transaction(work))
    await transaction_open.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (sent, await stored(sql)) == ([], [])
    assert database.pool_in_use() == 0


async def test_dry_run_returns_the_result_and_is_rolled_back(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    async def work(session: WriteSession) -> str:
        await store(session, 7)
        session.after_commit(ONE)
        return "result"

    assert await database.transaction(work, dry_run=True) == "result"
    assert (await stored(sql), sent, database.pool_in_use()) == ([], [], 0)
    assert await database.transaction(work) == "result"
    assert (await stored(sql), sent, database.pool_in_use()) == ([7], [ONE], 0)
    with pytest.raises(IntegrityError):
        await database.transaction(work, dry_run=True)
    assert sent == [ONE]


async def test_no_constraint_is_deferred_to_the_commit(sql: Sql) -> None:
    """Otherwise a dry run would succeed although its commit would fail."""
    assert await sql.fetch("SELECT conname FROM pg_constraint WHERE condeferrable") == []
    assert await sql.fetch("SELECT tgname FROM pg_trigger WHERE tgdeferrable") == []
