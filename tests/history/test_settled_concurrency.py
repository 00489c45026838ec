"""A reader that follows the settled position reads every row once, whatever the writers do."""

import asyncio
import contextlib
import random

import asyncpg
import pytest
from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.history.settled import BEFORE_FIRST_ROW
from segmentql.history.tracker import SettledPositionTracker
from tests.conftest import Sql
from tests.history.writers import Connect
from tests.timeline import history_inconsistencies, make_segment, make_users

USERS = range(1, 9)
SEGMENTS = 3
MAX_PAUSE_SECONDS = 0.004

LOCK_USERS = "SELECT FROM users WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE"
TOGGLE = """
WITH removed AS (
    DELETE FROM memberships WHERE user_id = ANY($1::bigint[]) AND segment_id = $2
    RETURNING user_id
)
INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
SELECT u.id, $2, at, at, 'MANUAL'
FROM unnest($1::bigint[]) AS u (id), (SELECT clock_timestamp() AS at OFFSET 0) AS moment
WHERE NOT EXISTS (SELECT FROM memberships m WHERE m.user_id = u.id AND m.segment_id = $2)
"""
ROWS = """
SELECT position, user_id, segment_id, operation, at FROM history
WHERE position > :after AND position <= :until ORDER BY position
"""

KILLED = (
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresConnectionError,
    OSError,
)
"""The errors of a statement whose backend was terminated."""

Row = tuple[object, ...]


class Writers:
    """Writers that change overlapping users in transactions of every kind."""

    def __init__(self, connect: Connect, segment_ids: list[int]) -> None:
        self._connect = connect
        self._segment_ids = segment_ids
        self._backends: dict[int, int] = {}

    async def run(self, number: int, transactions: int) -> None:
        dice = random.Random(number)  # noqa: S311 - similar changes each time
        connection = await self._open(number)
        for _ in range(transactions):
            try:
                await self._transaction(connection, dice)
            except KILLED:
                connection = await self._open(number)

    async def kill(self, sql: Sql, dice: random.Random) -> None:
        pid = dice.choice(list(self._backends.values()))
        await sql.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)

    async def _open(self, number: int) -> Sql:
        connection = await self._connect()
        self._backends[number] = connection.get_server_pid()
        return connection

    async def _transaction(self, connection: Sql, dice: random.Random) -> None:
        transaction = connection.transaction()
        await transaction.start()
        # The first lock gives the transaction its id, before it waits for other users.
        user_ids = sorted(dice.sample(USERS, dice.randint(1, 3)))
        await connection.execute(LOCK_USERS, user_ids)
        for _ in range(dice.randint(1, 2)):
            await self._change(connection, dice, user_ids)
            await asyncio.sleep(dice.uniform(0, MAX_PAUSE_SECONDS))
        if dice.random() < 0.25:
            await transaction.rollback()
        else:
            await transaction.commit()

    async def _change(self, connection: Sql, dice: random.Random, user_ids: list[int]) -> None:
        segment_id = dice.choice(self._segment_ids)
        if dice.random() < 0.6:
            await connection.execute(TOGGLE, user_ids, segment_id)
            return
        savepoint = connection.transaction()
        await savepoint.start()
        await connection.execute(TOGGLE, user_ids, segment_id)
        if dice.random() < 0.5:
            await savepoint.rollback()
        else:
            await savepoint.commit()


@pytest.mark.parametrize(
    ("writers", "transactions"),
    [(10, 40), pytest.param(20, 120, marks=pytest.mark.slow)],
)
async def test_reader_of_settled_positions_reads_every_row_once(
    database: Database, sql: Sql, connect: Connect, writers: int, transactions: int
) -> None:
    await make_users(sql, *USERS)
    segment_ids = [await make_segment(sql, f"S{number}") for number in range(SEGMENTS)]
    fleet = Writers(connect, segment_ids)
    tracker = SettledPositionTracker(database)
    read: list[Row] = []
    batches = 0
    cursor = BEFORE_FIRST_ROW

    async def read_settled() -> None:
        nonlocal cursor, batches
        newest = await tracker.advance()
        if newest is None or newest == cursor:
            return
        async with database.read() as session:
            values = {"after": cursor.position, "until": newest.position}
            rows = (await session.execute(text(ROWS), values)).all()
        assert rows[-1].position == newest.position
        read.extend(tuple(row) for row in rows)
        cursor = newest
        batches += 1

    async def follow() -> None:
        while True:
            await read_settled()

    async def kill_backends() -> None:
        dice = random.Random(0)  # noqa: S311
        while True:
            await asyncio.sleep(0.1)
            await fleet.kill(sql, dice)

    background = [asyncio.create_task(follow()), asyncio.create_task(kill_backends())]
    try:
        await asyncio.gather(*(fleet.run(number, transactions) for number in range(writers)))
    finally:
        for task in background:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    await read_settled()

    stored = await sql.fetch(
        "SELECT position, user_id, segment_id, operation::text, at FROM history ORDER BY position"
    )
    assert read == [tuple(row) for row in stored]
    assert batches > writers
    assert await history_inconsistencies(sql) == {}
