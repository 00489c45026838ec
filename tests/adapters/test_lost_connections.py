"""Reads and transactions that lose their connection are repeated if nothing was committed."""

import asyncio

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.errors import OutcomeUnknown, Unavailable
from tests.adapters.database_helpers import (
    ONE,
    at_commit,
    backend,
    idle_backend,
    ping,
    store,
    stored,
    terminate,
)
from tests.conftest import Sql, until
from tests.pooler import NEEDS_DIRECT_SESSION


async def test_read_recovers_from_a_dead_pooled_connection(sql: Sql, database: Database) -> None:
    died = await idle_backend(database)
    await terminate(sql, died)
    assert await database.read_one(ping) == 42
    assert await idle_backend(database) != died


async def test_transaction_recovers_from_a_dead_pooled_connection(
    sql: Sql, database: Database
) -> None:
    await terminate(sql, await idle_backend(database))
    await database.transaction(lambda session: store(session, 7))
    assert await stored(sql) == [7]


@NEEDS_DIRECT_SESSION
async def test_read_session_translates_the_error(sql: Sql, database: Database) -> None:
    await terminate(sql, await idle_backend(database))
    with pytest.raises(Unavailable):
        async with database.read() as session:
            await ping(session)


@NEEDS_DIRECT_SESSION
async def test_read_that_loses_two_connections_is_unavailable(sql: Sql, database: Database) -> None:
    reads = 0

    async def read(session: ReadSession) -> None:
        nonlocal reads
        reads += 1
        await terminate(sql, await backend(session))
        await ping(session)

    with pytest.raises(Unavailable):
        await database.read_one(read)
    assert reads == 2


async def test_transaction_that_loses_its_connection_is_repeated(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    died = False

    async def work(session: WriteSession) -> None:
        nonlocal died
        session.after_commit(ONE)
        await store(session, 7)
        if not died:
            died = True
            await terminate(sql, await backend(session))
        await store(session, 8)

    await database.transaction(work)
    assert await stored(sql) == [7, 8]
    assert sent == [ONE]


async def test_transaction_that_loses_every_connection_changes_nothing(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    attempts = 0

    async def work(session: WriteSession) -> None:
        nonlocal attempts
        attempts += 1
        session.after_commit(ONE)
        await store(session, 7)
        await terminate(sql, await backend(session))
        await store(session, 8)

    with pytest.raises(Unavailable) as raised:
        await database.transaction(work)
    assert not isinstance(raised.value, OutcomeUnknown)
    assert (attempts, sent, await stored(sql)) == (2, [], [])


async def test_connection_lost_during_the_commit_has_unknown_outcome(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    attempts = 0
    pids: list[int] = []

    async def work(session: WriteSession) -> None:
        nonlocal attempts
        attempts += 1
        session.after_commit(ONE)
        await store(session, 7)
        pids.append(await backend(session))

    async def committing() -> bool:
        return bool(
            pids
            and await sql.fetchval(
                "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $1", pids[0]
            )
        )

    async with at_commit(sql, "PERFORM pg_sleep(60)"):
        task = asyncio.create_task(database.transaction(work))
        await until(committing)
        await terminate(sql, pids[0])
        with pytest.raises(OutcomeUnknown):
            await task
    assert (attempts, sent) == (1, [])
