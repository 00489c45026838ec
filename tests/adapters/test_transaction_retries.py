"""Transactions are repeated after a deadlock or a conflict, but not after other errors."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from segmentql import metrics
from segmentql.adapters.database import MAX_ATTEMPTS, Database
from segmentql.adapters.database_errors import sqlstate
from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import WriteSession
from segmentql.local import LocalServers, with_database
from segmentql.segments.jobs import RECORD_SEGMENT_LEAVES
from tests.adapters.database_helpers import store, stored
from tests.conftest import Sql
from tests.timeline import make_users


def retries() -> float:
    (family,) = metrics.TRANSACTION_RETRIES.collect()
    return next(s.value for s in family.samples if s.name.endswith("_total"))


async def test_deadlock_victim_is_retried(sql: Sql, database: Database) -> None:
    await make_users(sql, 1, 2)
    await sql.execute("ALTER DATABASE run SET deadlock_timeout = '20ms'")
    both_hold_one = asyncio.Barrier(2)
    attempts = {1: 0, 2: 0}

    async def lock(first: int, second: int) -> None:
        async def work(session: WriteSession) -> None:
            attempts[first] += 1
            update = text("UPDATE users SET created_at = now() WHERE id = :id")
            await session.execute(update, {"id": first})
            if attempts[first] == 1:
                await both_hold_one.wait()
            await session.execute(update, {"id": second})

        await database.transaction(work)

    before = retries()
    await asyncio.gather(lock(1, 2), lock(2, 1))
    assert sorted(attempts.values()) == [1, 2]
    assert retries() - before == 1


@asynccontextmanager
async def conflicting(
    servers: LocalServers, *, times: int
) -> AsyncIterator[Callable[[WriteSession], Awaitable[int]]]:
    """Return work that reads, is overtaken by another update, and cannot be serialized."""
    other = await asyncpg.connect(with_database(servers.superuser_url, "run"))
    attempts = 0

    async def work(session: WriteSession) -> int:
        nonlocal attempts
        attempts += 1
        session.after_commit(Message(RECORD_SEGMENT_LEAVES, (attempts,)))
        await session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        await session.execute(text("SELECT FROM users"))
        if attempts <= times:
            await other.execute("UPDATE users SET created_at = clock_timestamp()")
        await session.execute(text("UPDATE users SET created_at = clock_timestamp()"))
        return attempts

    yield work
    await other.close()


async def test_serialization_failure_is_retried_and_sends_once(
    sql: Sql, servers: LocalServers, database: Database, sent: list[Message]
) -> None:
    await make_users(sql, 1)
    async with conflicting(servers, times=2) as work:
        assert await database.transaction(work) == 3
    assert sent == [Message(RECORD_SEGMENT_LEAVES, (3,))]


async def test_permanent_conflict_raises_the_error_of_postgresql(
    sql: Sql, servers: LocalServers, database: Database, sent: list[Message]
) -> None:
    await make_users(sql, 1)
    before = retries()
    async with conflicting(servers, times=1000) as work:
        with pytest.raises(DBAPIError, match="could not serialize") as raised:
            await database.transaction(work)
    assert sqlstate(raised.value) == "40001"
    assert retries() - before == MAX_ATTEMPTS - 1
    assert sent == []


async def test_constraint_violation_is_not_retried(sql: Sql, database: Database) -> None:
    await make_users(sql, 1)
    attempts = 0

    async def work(session: WriteSession) -> None:
        nonlocal attempts
        attempts += 1
        await store(session, 2)
        await store(session, 1)

    with pytest.raises(IntegrityError):
        await database.transaction(work)
    assert attempts == 1
    assert await stored(sql) == [1]
