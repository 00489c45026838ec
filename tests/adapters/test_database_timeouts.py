"""Statements, locks and connections have the configured limits of time."""

import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.errors import TimedOut, Unresponsive
from segmentql.settings import Settings
from tests.adapters.database_helpers import idle_backend, opened, ping, store, stored
from tests.conftest import Sql, until
from tests.pooler import NEEDS_OWN_TIMEOUT
from tests.timeline import make_users


@NEEDS_OWN_TIMEOUT
async def test_statement_timeout_rolls_back(sql: Sql, settings: Settings) -> None:
    database = opened(settings, statement_timeout_seconds=0.1)
    attempts = 0

    async def work(session: WriteSession) -> None:
        nonlocal attempts
        attempts += 1
        await store(session, 7)
        await session.execute(text("SELECT pg_sleep(60)"))

    with pytest.raises(TimedOut):
        await database.transaction(work)
    with pytest.raises(TimedOut):
        async with database.read() as session:
            await session.execute(text("SELECT pg_sleep(60)"))
    assert (attempts, await stored(sql)) == (1, [])
    assert await database.read_one(ping) == 42
    await database.dispose()


async def test_lock_timeout_is_reported(sql: Sql, database: Database) -> None:
    await make_users(sql, 1)

    async def work(session: WriteSession) -> None:
        await session.execute(text("SET LOCAL lock_timeout = '20ms'"))
        await session.execute(text("UPDATE users SET created_at = now()"))

    async with sql.transaction():
        await sql.execute("SELECT FROM users FOR UPDATE")
        with pytest.raises(TimedOut):
            await database.transaction(work)


@NEEDS_OWN_TIMEOUT
async def test_every_connection_has_the_configured_limits(settings: Settings, sql: Sql) -> None:
    database = opened(settings, statement_timeout_seconds=3.5)
    names = (
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "timezone",
        "application_name",
    )
    async with database.read() as session:
        values = [(await session.execute(text(f"SHOW {name}"))).scalar_one() for name in names]
    assert values == ["3500ms", "5s", "15s", "UTC", "tests"]
    await database.dispose()


@NEEDS_OWN_TIMEOUT
async def test_long_reads_use_separate_limits_and_connections(sql: Sql, settings: Settings) -> None:
    database = opened(settings, database_pool_size=1, statement_timeout_seconds=0.1)

    async def has_connections(number: int) -> bool:
        connections = await sql.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tests long'"
        )
        return bool(connections == number)

    async with database.long_read(seconds=60) as one, database.long_read(seconds=30) as other:
        for session, limit in ((one, "1min"), (other, "30s")):
            shown = await session.execute(text("SHOW statement_timeout"))
            assert shown.scalar_one() == limit
        assert await has_connections(2)
        assert database.pool_in_use() == 0
        assert await database.read_one(ping) == 42
    with pytest.raises(TimedOut):
        async with database.long_read(seconds=0.1) as session:
            await session.execute(text("SELECT pg_sleep(60)"))
    await until(lambda: has_connections(0))
    await database.dispose()


@asynccontextmanager
async def suspended_process(pid: int) -> AsyncIterator[None]:
    """Suspend a process in the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.slow
async def test_hanging_server_times_out_two_seconds_after_the_limit(
    sql: Sql, settings: Settings
) -> None:
    database = opened(settings, statement_timeout_seconds=0.1)
    pid = await idle_backend(database)
    async with suspended_process(pid):
        began = time.monotonic()
        with pytest.raises(Unresponsive):
            await database.read_one(ping)  # the query is not retried
        assert time.monotonic() - began < 5
    assert await database.read_one(ping) == 42
    assert await idle_backend(database) != pid
    await database.dispose()
