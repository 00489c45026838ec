"""The database adapter retries transactions, sends messages and translates errors."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError

from segmentql import metrics
from segmentql.adapters.database import MAX_ATTEMPTS, Database
from segmentql.adapters.database_errors import sqlstate
from segmentql.adapters.engines import POOL_WAIT_SECONDS
from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.errors import OutcomeUnknown, TimedOut, Unavailable, Unresponsive
from segmentql.local import LocalServers, with_database
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.segments.jobs import RECORD_SEGMENT_LEAVES
from segmentql.settings import Settings
from tests.conftest import Sql, until
from tests.timeline import make_segment, make_users

ONE, TWO = Message(EXPIRE_DUE_MEMBERSHIPS), Message(RECORD_SEGMENT_LEAVES, (2,))


async def store(session: WriteSession, user_id: int) -> None:
    await session.execute(
        text("INSERT INTO users (id, created_at) VALUES (:id, now())"), {"id": user_id}
    )


async def stored(sql: Sql) -> list[int]:
    return [row["id"] for row in await sql.fetch("SELECT id FROM users ORDER BY id")]


async def ping(session: ReadSession) -> int:
    return int((await session.execute(text("SELECT 42"))).scalar_one())


async def backend(session: WriteSession | ReadSession) -> int:
    return int((await session.execute(text("SELECT pg_backend_pid()"))).scalar_one())


def retries() -> float:
    (family,) = metrics.TRANSACTION_RETRIES.collect()
    return next(s.value for s in family.samples if s.name.endswith("_total"))


def opened(settings: Settings, **changes: object) -> Database:
    return Database(settings.model_copy(update=changes), name="tests", publish=lambda _: None)


# --- Retries ------------------------------------------------------------------------------------


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


# --- After the commit ---------------------------------------------------------------------------


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


@asynccontextmanager
async def at_commit(sql: Sql, body: str) -> AsyncIterator[None]:
    """Run `body` before each commit that stored a user succeeds."""
    await sql.execute(
        f"""
        CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN {body}; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON users
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit();
        """
    )
    try:
        yield
    finally:
        await sql.execute("DROP TRIGGER at_commit ON users; DROP FUNCTION at_commit()")


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


# --- Faults -------------------------------------------------------------------------------------


async def terminate(sql: Sql, pid: int) -> None:
    """Terminate a backend and wait until it has ended."""
    await sql.execute("SELECT pg_terminate_backend($1, 10000)", pid)


async def idle_backend(database: Database) -> int:
    """Return the process id of the backend of the pool's only connection."""
    async with database.read() as session:
        return await backend(session)


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


async def test_read_session_translates_the_error(sql: Sql, database: Database) -> None:
    await terminate(sql, await idle_backend(database))
    with pytest.raises(Unavailable):
        async with database.read() as session:
            await ping(session)


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


async def test_read_only_server_is_unavailable(sql: Sql, database: Database) -> None:
    """A standby, for instance, that a failed-over connection still reaches."""

    async def work(session: WriteSession) -> None:
        await session.execute(text("SET TRANSACTION READ ONLY"))
        await session.execute(text("UPDATE users SET created_at = now()"))

    with pytest.raises(Unavailable):
        await database.transaction(work)


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


async def test_closed_port_is_unavailable(sql: Sql, settings: Settings) -> None:
    nowhere = make_url(settings.database_url).set(port=1)
    database = opened(settings, database_url=nowhere.render_as_string(hide_password=False))
    await assert_unavailable(database)
    await database.dispose()


async def test_server_that_rejects_connections_is_unavailable(sql: Sql, settings: Settings) -> None:
    database = opened(settings)
    await sql.execute("ALTER ROLE segmentql_service CONNECTION LIMIT 0")
    try:
        await assert_unavailable(database)
    finally:
        await sql.execute("ALTER ROLE segmentql_service CONNECTION LIMIT -1")
    assert await database.read_one(ping) == 42
    await database.dispose()


async def test_wrong_password_is_unavailable(sql: Sql, settings: Settings) -> None:
    wrong_url = make_url(settings.database_url).set(password="wrong")
    database = opened(settings, database_url=wrong_url.render_as_string(hide_password=False))
    await assert_unavailable(database)
    await database.dispose()


async def assert_unavailable(database: Database) -> None:
    with pytest.raises(Unavailable):
        async with database.read() as session:
            await ping(session)
    with pytest.raises(Unavailable):
        await database.read_one(ping)
    with pytest.raises(Unavailable) as raised:
        await database.transaction(lambda session: store(session, 7))
    assert not isinstance(raised.value, OutcomeUnknown)


async def test_stopped_server_is_unavailable_until_it_restarts(
    servers: LocalServers, settings: Settings, sql: Sql
) -> None:
    database = opened(settings)
    assert await database.read_one(ping) == 42
    faults: list[type[Exception]] = []

    async def answers() -> bool:
        try:
            return await database.read_one(ping) == 42
        except Exception as error:  # noqa: BLE001 - the test records every exception
            faults.append(type(error))
            return False

    # This includes the shutdown and the start, when it accepts connections and then rejects them.
    stopping = asyncio.create_task(servers.postgres.stop())
    try:
        while not stopping.done():
            await answers()
            await asyncio.sleep(0)
        await assert_unavailable(database)
    finally:
        await stopping
        starting = asyncio.create_task(servers.postgres.start())
        await until(answers)
        await starting
    assert set(faults) == {Unavailable}
    await database.transaction(lambda session: store(session, 7))
    await database.dispose()


# --- Reads --------------------------------------------------------------------------------------


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
