"""Connections return to the pool, and transactions leave some of them for reads."""

import asyncio
import time

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from segmentql.adapters.engines import POOL_WAIT_SECONDS
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.errors import TimedOut, Unavailable
from segmentql.settings import Settings
from tests.adapters.database_helpers import opened, ping
from tests.conftest import Sql, until
from tests.pooler import NEEDS_OWN_TIMEOUT


@NEEDS_OWN_TIMEOUT
async def test_connections_return_to_the_pool_after_every_error(
    sql: Sql, settings: Settings
) -> None:
    database = opened(settings, database_pool_size=1, statement_timeout_seconds=0.1)

    async def bad(session: ReadSession) -> None:
        await session.execute(text("SELECT 1 / 0"))

    async def slow(session: ReadSession) -> None:
        await session.execute(text("SELECT pg_sleep(60)"))

    for work in (bad, slow):
        with pytest.raises((DBAPIError, TimedOut)):
            await database.read_one(work)
        assert database.pool_in_use() == 0
    assert await database.read_one(ping) == 42
    await database.dispose()


@pytest.mark.e2e  # it takes seconds
async def test_exhausted_pool_is_unavailable_after_its_timeout(
    sql: Sql, settings: Settings
) -> None:
    database = opened(settings, database_pool_size=1)
    async with database.read() as session:
        await ping(session)
        began = time.monotonic()
        with pytest.raises(Unavailable):
            async with database.read() as other:
                await ping(other)
        assert POOL_WAIT_SECONDS - 0.5 < time.monotonic() - began < POOL_WAIT_SECONDS + 3
    await database.dispose()


async def test_burst_of_transactions_leaves_connections_for_reads(
    sql: Sql, settings: Settings
) -> None:
    database = opened(settings, database_pool_size=5)
    go_on = asyncio.Event()

    async def slow(session: WriteSession) -> int:
        answer: int = (await session.execute(text("SELECT 42"))).scalar_one()
        await go_on.wait()
        return answer

    changes = [asyncio.create_task(database.transaction(slow)) for _ in range(10)]

    async def are_running() -> bool:
        return database.pool_in_use() == 3

    await until(are_running)
    assert await asyncio.gather(*(database.read_one(ping) for _ in range(10))) == [42] * 10
    assert database.pool_in_use() == 3
    go_on.set()
    assert await asyncio.gather(*changes) == [42] * 10
    await database.dispose()
