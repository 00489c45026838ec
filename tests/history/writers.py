"""Writers of history on given connections, and a reader that follows the settled position."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import asyncpg
from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.errors import TimedOut, Unavailable
from segmentql.history.settled import BEFORE_FIRST_ROW
from segmentql.history.tracker import SettledPositionTracker
from tests.conftest import Sql

Connect: TypeAlias = Callable[[], Awaitable[Sql]]


async def join(connection: Sql, user_id: int, segment_id: int) -> None:
    """Add an existing user to a segment."""
    await connection.execute(
        """
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
        SELECT $1, $2, at, at, 'MANUAL' FROM clock_timestamp() AS at
        """,
        user_id,
        segment_id,
    )


async def position_of(connection: Sql, user_id: int) -> int:
    """Return the position of a user's newest row that the connection sees."""
    position: int = await connection.fetchval(
        "SELECT max(position) FROM history WHERE user_id = $1", user_id
    )
    return position


async def begin_join(connection: Sql, user_id: int, segment_id: int) -> None:
    """Begin a transaction that adds a user to a segment. The caller ends it."""
    await connection.execute("BEGIN")
    await join(connection, user_id, segment_id)


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

Row: TypeAlias = tuple[object, ...]


class RandomWriters:
    """Writers that change overlapping users in transactions of every kind."""

    USERS: Final = range(1, 9)
    MAX_PAUSE_SECONDS: Final = 0.004

    def __init__(self, connect: Connect, segment_ids: list[int]) -> None:
        self._connect = connect
        self._segment_ids = segment_ids
        self._backends: dict[int, int] = {}

    async def run(self, number: int, transactions: int) -> None:
        """Run transactions on a connection, and on another one when it is lost."""
        dice = random.Random(number)  # noqa: S311 - similar changes each time
        connection = None
        try:
            for _ in range(transactions):
                try:
                    connection = connection or await self._open(number)
                    await self._transaction(connection, dice)
                except KILLED:
                    connection = None
                    await asyncio.sleep(self.MAX_PAUSE_SECONDS)
        finally:
            if connection:
                connection.terminate()

    async def kill_one(self, sql: Sql, dice: random.Random) -> None:
        """Terminate the backend of one writer, in the middle of a transaction or not."""
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
        user_ids = sorted(dice.sample(self.USERS, dice.randint(1, 3)))
        await connection.execute(LOCK_USERS, user_ids)
        for _ in range(dice.randint(1, 2)):
            await self._change(connection, dice, user_ids)
            await asyncio.sleep(dice.uniform(0, self.MAX_PAUSE_SECONDS))
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


class SettledReader:
    """A reader of the feed: it reads all rows up to each settled position, and then goes on."""

    def __init__(self, database: Database, tracker: SettledPositionTracker) -> None:
        self._database = database
        self._tracker = tracker
        self.cursor = BEFORE_FIRST_ROW
        self.rows: list[Row] = []
        self.batches = 0

    async def read(self) -> None:
        """Read the rows that have settled since the last call."""
        newest = await self._tracker.advance()
        if newest is None or newest == self.cursor:
            return
        async with self._database.read() as session:
            values = {"after": self.cursor.position, "until": newest.position}
            rows = (await session.execute(text(ROWS), values)).all()
        assert rows[-1].position == newest.position
        self.rows += (tuple(row) for row in rows)
        self.cursor = newest
        self.batches += 1

    async def follow(self) -> None:
        """Read until cancelled, across outages of the database."""
        while True:
            with contextlib.suppress(Unavailable, TimedOut):
                await self.read()


async def stored_rows(sql: Sql) -> list[Row]:
    """Return all rows of history in order of position, as a `SettledReader` reads them."""
    rows = await sql.fetch(
        "SELECT position, user_id, segment_id, operation::text, at FROM history ORDER BY position"
    )
    return [tuple(row) for row in rows]
