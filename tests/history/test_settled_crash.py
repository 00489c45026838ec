"""Settled positions and cursors after crashes, restarts and promotions of a real PostgreSQL."""

import asyncio
import contextlib
import os
import random
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from segmentql.adapters.database import Database
from segmentql.errors import Unavailable
from segmentql.history.settled import (
    CursorState,
    HistoryCursor,
    check_cursor,
    wait_for_settled_row,
)
from segmentql.history.tracker import SettledPositionTracker
from segmentql.local import LocalServers
from segmentql.local.postgres import DATABASE, SERVICE_ROLE, SUPERUSER
from tests.conftest import Sql, empty_tables, until
from tests.history.clusters import migrated_cluster
from tests.history.writers import (
    RandomWriters,
    SettledReader,
    begin_join,
    join,
    position_of,
    stored_rows,
)
from tests.timeline import history_inconsistencies, make_segment, make_users

pytestmark = pytest.mark.slow  # each test kills or restarts a server

POSTGRES_SETTINGS = {
    "fsync": "off",  # the machine does not crash
    "max_prepared_transactions": "5",
    # Only commits write the log, so that a crash loses what is not committed.
    "wal_writer_delay": "10s",
    "wal_writer_flush_after": "1GB",
}


class Server:
    """A PostgreSQL for this module only, with a migrated database."""

    def __init__(self, servers: LocalServers, connections: contextlib.ExitStack) -> None:
        self.process = servers.postgres
        self.settings = servers.settings(DATABASE)
        self._urls = {SUPERUSER: servers.superuser_url, SERVICE_ROLE: servers.service_url}
        self._connections = connections

    async def connect(self, role: str = SERVICE_ROLE) -> Sql:
        connection = await asyncpg.connect(self._urls[role])
        self._connections.callback(connection.terminate)
        return connection

    async def crash(self) -> None:
        """Kill the whole server and start it."""
        await self.process.kill()
        await self.process.start()

    async def crash_backend(self) -> None:
        """Kill one backend. The server then ends all others and recovers, without a new start."""
        victim = await self.connect()
        os.kill(victim.get_server_pid(), signal.SIGKILL)
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await victim.execute("SELECT pg_sleep(10)")

        async def accepts_connections() -> bool:
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await (await self.connect()).fetchval("SELECT 1")
                return True
            return False

        await until(accepts_connections)


@pytest.fixture(scope="module")
async def crashing_servers(servers: LocalServers) -> AsyncIterator[LocalServers]:
    """Run another PostgreSQL, with a migrated database."""
    with tempfile.TemporaryDirectory(prefix="segmentql-crash-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        async with migrated_cluster(servers, folder / "data", POSTGRES_SETTINGS) as running:
            yield running


@pytest.fixture
async def server(crashing_servers: LocalServers) -> AsyncIterator[Server]:
    """Return the server with empty tables."""
    with contextlib.ExitStack() as connections:
        opened = Server(crashing_servers, connections)
        await empty_tables(await opened.connect(SUPERUSER))
        yield opened


@pytest.fixture
async def database(server: Server) -> AsyncIterator[Database]:
    opened = Database(server.settings, name="tests", publish=lambda messages: None)
    yield opened
    await opened.dispose()


@pytest.fixture
async def tracker(database: Database) -> SettledPositionTracker:
    return SettledPositionTracker(database)


@pytest.fixture
async def segment_id(server: Server) -> int:
    superuser = await server.connect(SUPERUSER)
    await make_users(superuser, *range(1, 10))
    return await make_segment(superuser, "A")


async def state(database: Database, cursor: HistoryCursor) -> CursorState:
    return await database.read_one(lambda session: check_cursor(session, cursor))


CRASHES = pytest.mark.parametrize("crash", [Server.crash, Server.crash_backend])


@CRASHES
async def test_candidate_from_before_a_crash_settles_nothing(
    server: Server,
    tracker: SettledPositionTracker,
    segment_id: int,
    crash: Callable[[Server], Awaitable[None]],
) -> None:
    """The numbers that it covers are given out again, to transactions that it does not know."""
    await join(await server.connect(), 1, segment_id)
    first = await tracker.advance()
    assert first is not None
    lost = await server.connect()
    for _ in range(100):  # no transaction after the crash has its virtual id by chance
        await lost.fetchval("SELECT 1")
    await lost.execute("BEGIN")
    for _ in range(20):  # more numbers than one record of the log covers
        await join(lost, 2, segment_id)
        await join(lost, 3, segment_id)
        await lost.execute("DELETE FROM memberships WHERE user_id > 1")
    assert await tracker.advance() == first
    last_before_crash = await position_of(lost, 3)
    await crash(server)

    pending, other = await server.connect(), await server.connect()
    await begin_join(pending, 4, segment_id)
    assert await position_of(pending, 4) < last_before_crash
    while (await position_of(other, 5) or 0) <= last_before_crash:
        await join(other, 5, segment_id)
        await other.execute("DELETE FROM memberships WHERE user_id = 5")
    assert await tracker.advance() is None
    assert await tracker.advance() is None
    await pending.execute("COMMIT")
    cursor = await tracker.advance()
    assert cursor is not None
    assert cursor.position == await position_of(other, 5)


async def test_cursor_of_a_lost_row_is_reset_although_its_position_exists(
    server: Server, database: Database, segment_id: int
) -> None:
    """A row of an asynchronous commit is visible before it is durable."""
    superuser = await server.connect(SUPERUSER)
    await join(superuser, 1, segment_id)
    kept = await wait_for_settled_row(database, seconds=0)
    assert kept is not None
    writer = await server.connect()
    await writer.execute("SET synchronous_commit = off")
    for _ in range(20):
        await join(writer, 2, segment_id)
        await writer.execute("DELETE FROM memberships WHERE user_id = 2")
    lost = await wait_for_settled_row(database, seconds=0)
    assert lost is not None
    assert await state(database, lost) == CursorState.VALID
    await server.crash()

    assert await state(database, kept) == CursorState.VALID
    assert await state(database, lost) == CursorState.RESET
    writer = await server.connect()
    while (await position_of(writer, 3) or 0) < lost.position:
        await join(writer, 3, segment_id)
        await writer.execute("DELETE FROM memberships WHERE user_id = 3")
    assert (
        await writer.fetchval("SELECT count(*) FROM history WHERE position = $1", lost.position)
        == 1
    )
    assert await state(database, lost) == CursorState.RESET
    assert await state(database, kept) == CursorState.VALID


async def test_prepared_transaction_is_pending_across_a_restart(
    server: Server, tracker: SettledPositionTracker, segment_id: int
) -> None:
    writer = await server.connect()
    await join(writer, 1, segment_id)
    first = await tracker.advance()
    await begin_join(writer, 2, segment_id)
    await join(await server.connect(), 3, segment_id)
    assert await tracker.advance() == first
    await writer.execute("PREPARE TRANSACTION 'prepared'")
    await join(writer, 4, segment_id)  # the same connection
    assert await tracker.advance() == first
    await server.process.stop()
    await server.process.start()

    assert await tracker.advance() is None
    assert await tracker.advance() is None
    writer = await server.connect()
    await writer.execute("COMMIT PREPARED 'prepared'")
    cursor = await tracker.advance()
    assert cursor is not None
    assert cursor.position == await position_of(writer, 4) > await position_of(writer, 2)


async def test_standby_is_rejected_until_its_promotion(
    server: Server, tracker: SettledPositionTracker, segment_id: int
) -> None:
    """Its pg_locks does not have the transactions of the primary."""
    await join(await server.connect(), 1, segment_id)
    before = await tracker.advance()
    await server.process.stop()
    cluster = server.process.program.working_folder
    assert cluster is not None
    (cluster / "standby.signal").touch()
    server.process.launch()
    await until(server.process.program.is_ready)
    with pytest.raises(Unavailable):
        await tracker.advance()
    superuser = await server.connect(SUPERUSER)
    assert await superuser.fetchval("SELECT pg_promote()")
    assert await tracker.advance() == before


@CRASHES
async def test_reader_continues_after_crashes_and_reads_every_row_once(
    server: Server,
    database: Database,
    tracker: SettledPositionTracker,
    crash: Callable[[Server], Awaitable[None]],
) -> None:
    superuser = await server.connect(SUPERUSER)
    await make_users(superuser, *RandomWriters.USERS)
    segment_ids = [await make_segment(superuser, f"S{number}") for number in range(3)]
    writers = RandomWriters(server.connect, segment_ids)
    reader = SettledReader(database, tracker)
    tasks = [
        asyncio.create_task(reader.follow()),
        *(asyncio.create_task(writers.run(number, 100_000)) for number in range(8)),
    ]
    dice = random.Random(1)  # noqa: S311 - similar each time
    for _ in range(5):
        enough = len(reader.rows) + dice.randint(20, 120)

        async def has_read(enough: int = enough) -> bool:
            assert not any(task.done() for task in tasks)
            return len(reader.rows) >= enough

        await until(has_read)
        await crash(server)
        assert await state(database, reader.cursor) == CursorState.VALID
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    superuser = await server.connect(SUPERUSER)
    stored = await stored_rows(superuser)

    async def has_read_all() -> bool:
        await reader.read()
        return len(reader.rows) >= len(stored)

    await until(has_read_all)
    assert reader.rows == stored
    assert await history_inconsistencies(superuser) == {}
