"""Migrations 0008 and 0009 keep every row, in order, while readers and writers continue."""

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy.exc import SQLAlchemyError

from segmentql.adapters import migrations
from segmentql.adapters.database import Database
from segmentql.local import LocalServers, with_database
from segmentql.memberships.service import update_user_segments
from segmentql.principal import Actor
from segmentql.settings import Settings
from tests.conftest import Sql, environment, until
from tests.databases import blank_database

FIRST_NEW_POSITION = 1_000_000_000_000
CHUNK_ROWS = 20_000
"""The rows that migration 0009 numbers in one transaction."""

STATES = ("ACTIVE", "PAUSED", "CANCELLED", "FAILED", "WITHDRAWING")
EXCLUDED_USERS = 3000
OLD_WRITERS = range(1_000_001, 1_000_004)
NEW_WRITERS = range(2_000_001, 2_000_003)

# Two users at each moment. Each has a leave and a join. The order of the rows is arbitrary.
FILL_HISTORY = """
INSERT INTO history
    (user_id, at, segment_id, operation, membership_id, cause, actor, recorded_at)
SELECT 1 + pair % 1000, at, CASE i % 2 WHEN 0 THEN 1 ELSE 2 END,
    CASE i % 2 WHEN 0 THEN 'JOINED' ELSE 'LEFT' END::operation, pair, 'MANUAL', 'ada', at
FROM generate_series(0, $1::bigint - 1) AS i
CROSS JOIN LATERAL (SELECT i / 2 AS pair) AS pairs
CROSS JOIN LATERAL (
    SELECT date_trunc('day', now()) - interval '150 days'
        + (pair / 2) * (interval '149 days' / ($1::bigint / 4)) AS at
) AS moment
ORDER BY hashint8(i)
"""

FILL = f"""
INSERT INTO segments (slug, created_at, updated_at)
    SELECT 'S' || number, now(), now() FROM generate_series(1, 2 + {len(STATES)}) AS number;
INSERT INTO users (id, created_at) SELECT id, now() FROM generate_series(1, {EXCLUDED_USERS}) AS id;
INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, expires_at, cause, actor)
    SELECT id, 3, now() - interval '1 day', now() - interval '1 day',
        CASE WHEN id % 2 = 0 THEN now() - interval '1 hour' END, 'MANUAL', 'ada'
    FROM generate_series(1, 100) AS id;
INSERT INTO exclusions (user_id, segment_id, excluded_at)
    SELECT id, 1, now() - interval '1 day' FROM generate_series(1, {EXCLUDED_USERS}) AS id;
INSERT INTO rollouts (segment_id, state, enroll_new_users, actor, paused_at, failure, max_percent,
        pass_number, phase, stage, percent, removes_members, last_insert_seq, bound_hash,
        bound_user_id, cursor_user_id, users_total, users_seen, heartbeat_at)
    SELECT 2 + number, state, false, 'ada',
        CASE WHEN state IN ('PAUSED', 'WITHDRAWING', 'CANCELLED') THEN now() END,
        CASE state WHEN 'FAILED' THEN 'broken' END,
        25, number, 'WORKING', 1, 25, false, 10, 20, 30, 40, 50, 45, now()
    FROM unnest('{{{",".join(STATES)}}}'::rollout_state[])
        WITH ORDINALITY AS states (state, number);
INSERT INTO rollout_stages (segment_id, number, percent, starts_at)
    SELECT 2 + rollout, number, 25 * number, date_trunc('day', now()) + number * interval '1 day'
    FROM generate_series(1, {len(STATES)}) AS rollout, generate_series(1, 2) AS number;
"""

# The privileges of the previous version, as far as its statements below need them.
OLD_GRANTS = """
GRANT SELECT, INSERT, DELETE ON users, memberships, exclusions TO segmentql_service;
GRANT UPDATE (created_at) ON users TO segmentql_service;
GRANT SELECT ON history, segments TO segmentql_service;
GRANT UPDATE (name) ON segments TO segmentql_service;
GRANT SELECT, INSERT, UPDATE ON deleted_users TO segmentql_service;
GRANT EXECUTE ON FUNCTION make_history_partitions(date, integer) TO segmentql_service;
"""

# The statements of the previous version: their locks, columns and settings.
OLD_LOCK_AND_STORE_USER = """
WITH found AS MATERIALIZED (
    SELECT id FROM segments WHERE slug IN ('S1', 'S2') AND deleted_at IS NULL
    ORDER BY id FOR KEY SHARE
), stored AS (
    INSERT INTO users (id, created_at)
    SELECT $1::bigint, clock_timestamp() FROM (SELECT count(*) FROM found)
    ON CONFLICT (id) DO UPDATE SET created_at = users.created_at WHERE false
    RETURNING id
)
SELECT count(*) FROM stored
"""
OLD_CHANGE = """
change AS MATERIALIZED (
    SELECT at, set_config('segmentql.moment', at::text, true),
        set_config('segmentql.actor', 'old', true)
    FROM (
        SELECT greatest(clock_timestamp(), (
            SELECT max(at) + interval '1 microsecond' FROM history
            WHERE user_id = $1 AND at >= now()
        )) AS at
    ) AS moment
)
"""
OLD_UPDATE_MEMBERSHIPS = f"""
WITH {OLD_CHANGE},
removed AS (
    DELETE FROM memberships m USING change WHERE m.user_id = $1 AND m.segment_id = $3
), excluded_now AS (
    INSERT INTO exclusions (user_id, segment_id, excluded_at)
    SELECT $1, $3, at FROM change ON CONFLICT DO NOTHING
), admitted AS (
    DELETE FROM exclusions WHERE user_id = $1 AND segment_id = $2
)
INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause, actor)
SELECT $1, $2, at, at, 'MANUAL', 'old' FROM change
"""
OLD_DELETE_USER = f"""
WITH {OLD_CHANGE},
ended AS (DELETE FROM memberships m USING change WHERE m.user_id = $1),
admitted AS (DELETE FROM exclusions WHERE user_id = $1),
kept AS (
    INSERT INTO deleted_users (id, deleted_at) SELECT $1, at FROM change
    ON CONFLICT (id) DO UPDATE SET deleted_at = excluded.deleted_at
)
DELETE FROM users WHERE id = $1
"""

# The lock of `make_history_partitions`, which migration 0009 takes for each chunk.
TAKE_CHUNK_LOCK = "SELECT pg_advisory_lock(hashtextextended('make_history_partitions', 0))"
RELEASE_CHUNK_LOCK = "SELECT pg_advisory_unlock(hashtextextended('make_history_partitions', 0))"
MIGRATION = "application_name = 'segmentql migrate' AND datname = current_database()"
MIGRATION_WAITS = f"""
SELECT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE {MIGRATION} AND wait_event_type = 'Lock' AND wait_event = $1)
"""


@pytest.fixture
async def blank(servers: LocalServers) -> AsyncIterator[Settings]:
    """Yield the settings of a service with an empty database."""
    async with blank_database(servers) as settings:
        yield settings


Connect = Callable[..., Coroutine[Any, Any, Sql]]


@pytest.fixture
async def connect(servers: LocalServers, blank: Settings) -> AsyncIterator[Connect]:
    """Return a function that connects to that database, as a superuser unless a URL is given."""
    opened: list[Sql] = []

    async def connect(url: str = servers.superuser_url) -> Sql:
        name = blank.database_url.rsplit("/", maxsplit=1)[-1]
        opened.append(
            await asyncpg.connect(
                with_database(url, name), server_settings={"lock_timeout": "2s", "jit": "off"}
            )
        )
        return opened[-1]

    yield connect
    for connection in opened:
        await connection.close()


async def upgrade(settings: Settings, revision: str = "head") -> None:
    await asyncio.to_thread(migrations.upgrade, settings, revision)


async def make_old_database(settings: Settings, sql: Sql, *, rows: int) -> None:
    """Create a database of the previous version.

    Its history has `rows` entries of five months. Two months are in the DEFAULT partition.
    """
    await upgrade(settings, "0007")
    await sql.execute(OLD_GRANTS)
    await sql.execute("SELECT make_history_partitions((now() - interval '90 days')::date, 3)")
    await sql.execute(FILL)
    await sql.execute("SET session_replication_role = replica")
    await sql.execute(FILL_HISTORY, rows)
    await sql.execute("SET session_replication_role = DEFAULT")
    await sql.execute("CREATE SCHEMA copy")
    await sql.execute("CREATE TABLE copy.history AS SELECT * FROM history")


class Traffic:
    """Readers and writers that repeat their work until they are stopped. An error ends the test."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self.counts: dict[str, int] = {}

    async def repeat(self, name: str, work: Callable[[int], Coroutine[Any, Any, Any]]) -> None:
        for number in itertools.count():
            if self.stopped.is_set():
                return
            await work(number)
            self.counts[name] = number + 1

    async def have_worked(self, times: int) -> None:
        """Wait until each has worked `times` more times."""
        goal = {name: count + times for name, count in self.counts.items()}

        async def reached() -> bool:
            return all(self.counts[name] >= count for name, count in goal.items())

        await until(reached)


@asynccontextmanager
async def traffic_of_the_previous_version(
    servers: LocalServers, connect: Connect, *, long_reads: bool = False
) -> AsyncIterator[tuple[Traffic, asyncio.TaskGroup]]:
    """Let writers and readers with the statements of the previous version work meanwhile."""
    traffic = Traffic()

    async def write(connection: Sql, user_id: int, number: int) -> None:
        async with connection.transaction():
            await connection.execute(OLD_LOCK_AND_STORE_USER, user_id)
            if number % 10 == 9:
                await connection.execute(OLD_DELETE_USER, user_id)
            else:
                add = 1 + number % 2
                await connection.execute(OLD_UPDATE_MEMBERSHIPS, user_id, add, 3 - add)

    async def read(connection: Sql, _: int) -> None:
        await connection.fetchval("SELECT count(*) FROM history WHERE user_id = 1")
        await connection.fetchval("SELECT count(*) FROM memberships m JOIN segments s ON true")

    async def read_long(connection: Sql, _: int) -> None:
        """Hold a lock for longer than the first attempts of the migration wait for it."""
        await connection.fetchval("SELECT max(at) FROM history, pg_sleep(0.25)")
        await connection.fetchval("SELECT pg_sleep(0.1)")

    async with asyncio.TaskGroup() as tasks:
        for user_id in OLD_WRITERS:
            writer = await connect(servers.service_url)
            tasks.create_task(
                traffic.repeat(
                    f"writer {user_id}",
                    lambda n, c=writer, u=user_id: write(c, u, n),  # type: ignore[misc]
                )
            )
        readers = {"reader": read, **({"long reader": read_long} if long_reads else {})}
        for name, work in readers.items():
            reader = await connect(servers.service_url)
            tasks.create_task(
                traffic.repeat(name, lambda n, c=reader, w=work: w(c, n))  # type: ignore[misc]
            )
        await until(lambda: _all_counted(traffic, len(OLD_WRITERS) + len(readers)))
        try:
            yield traffic, tasks
        finally:
            traffic.stopped.set()


async def _all_counted(traffic: Traffic, number: int) -> bool:
    return len(traffic.counts) == number


@asynccontextmanager
async def traffic_of_the_new_version(
    settings: Settings, traffic: Traffic, tasks: asyncio.TaskGroup
) -> AsyncIterator[None]:
    """Let writers of this version work too, which start after the upgrade."""
    database = Database(settings, name="new version", publish=lambda _: None)

    async def write(user_id: int, number: int) -> None:
        slugs = ("S1", "S2") if number % 2 else ("S2", "S1")
        for changed_user_id in (user_id, 1 + number % EXCLUDED_USERS):
            await database.transaction(
                lambda session: update_user_segments(
                    session,
                    user_id=changed_user_id,  # noqa: B023 - awaited in the same round
                    add=slugs[:1],
                    remove=slugs[1:],
                    actor=Actor("new", "abcdefghijkl"),
                )
            )

    number_before = len(traffic.counts)
    for user_id in NEW_WRITERS:
        tasks.create_task(traffic.repeat(f"new {user_id}", lambda n, u=user_id: write(u, n)))  # type: ignore[misc]
    await until(lambda: _all_counted(traffic, number_before + len(NEW_WRITERS)))
    yield
    await database.dispose()


async def make_partitions(connection: Sql, months: int) -> None:
    """Make the partitions of the oldest months, as the scheduler does, with its retries."""
    for month in range(months):
        while True:
            try:
                await connection.execute(
                    "SELECT make_history_partitions("
                    "(now() - make_interval(days => 155 - 31 * $1))::date, 1)",
                    month,
                )
                break
            except (asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError):
                continue


async def assert_upgraded(sql: Sql) -> None:
    """Check everything that the two migrations promise."""
    columns = "user_id, at, segment_id, operation, membership_id, cause, actor, recorded_at"
    lost = f"SELECT {columns} FROM copy.history EXCEPT ALL SELECT {columns} FROM history"
    assert await sql.fetchval(f"SELECT count(*) FROM ({lost}) AS lost") == 0
    # Entries of before 0008 are below the sequence, and the later ones are above.
    old = await sql.fetchrow(
        """
        SELECT count(*) AS total, min(position) AS first, max(position) AS last
        FROM history WHERE position < $1
        """,
        FIRST_NEW_POSITION,
    )
    assert old is not None
    assert (old["first"], old["last"]) == (1, old["total"])
    assert old["total"] >= await sql.fetchval("SELECT count(*) FROM copy.history")
    assert (
        await sql.fetchval(
            """
            SELECT count(*) FROM (
                SELECT (at, user_id, operation) < lag((at, user_id, operation))
                    OVER (ORDER BY position) AS wrong
                FROM history WHERE position < $1
            ) AS entries WHERE wrong
            """,
            FIRST_NEW_POSITION,
        )
        == 0
    )
    assert await sql.fetchval(
        """
        SELECT (SELECT max(recorded_at) FROM history WHERE position < $1)
            < (SELECT min(recorded_at) FROM history WHERE position >= $1)
        """,
        FIRST_NEW_POSITION,
    )
    assert await sql.fetchval("SELECT count(*) = count(DISTINCT position) FROM history")
    assert await sql.fetchval(
        "SELECT bool_and(attnotnull) FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
        "WHERE attname = 'position' AND relname ~ '^history' AND relkind IN ('r', 'p') "
        "AND relnamespace = 'public'::regnamespace"
    )
    await assert_index_is_complete(sql)
    await assert_logs_are_complete(sql)


async def assert_index_is_complete(sql: Sql) -> None:
    """Check that the index on positions is valid on `history` and on each partition."""
    assert (
        await sql.fetchval(
            """
            SELECT count(*) FROM pg_inherits partition
            WHERE inhparent = 'history'::regclass AND NOT EXISTS (
                SELECT FROM pg_inherits attached JOIN pg_index ON indexrelid = attached.inhrelid
                WHERE attached.inhparent = 'ix_history_position'::regclass
                    AND indrelid = partition.inhrelid AND indisvalid AND indisready)
            """
        )
        == 0
    )
    assert await sql.fetchval(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_history_position'::regclass"
    )


async def assert_logs_are_complete(sql: Sql) -> None:
    """Check that the last entry of the log agrees with each exclusion, and the rollouts' events."""
    assert (
        await sql.fetch(
            """
            SELECT e.user_id, e.segment_id, last.operation
            FROM exclusions e FULL JOIN (
                SELECT DISTINCT ON (user_id, segment_id) user_id, segment_id, operation
                FROM exclusion_log WHERE user_id IN (SELECT id FROM users)
                ORDER BY user_id, segment_id, id DESC
            ) AS last USING (user_id, segment_id)
            WHERE (e.excluded_at IS NOT NULL) <> (last.operation IS NOT DISTINCT FROM 'EXCLUDED')
            """
        )
        == []
    )
    events = await sql.fetch(
        """
        SELECT event::text, state::text, actor, failure, paused_at IS NULL, percents::text,
            start_times = ARRAY[date_trunc('day', now()) + interval '1 day',
                date_trunc('day', now()) + interval '2 days']
        FROM rollout_events ORDER BY segment_id
        """
    )
    assert [tuple(row) for row in events] == [
        (
            "BACKFILLED",
            state,
            None,
            "broken" if state == "FAILED" else None,
            state in {"ACTIVE", "FAILED"},
            "{25.000,50.000}",
            True,
        )
        for state in STATES
    ]
    passes = await sql.fetch(
        """
        SELECT pass_number, stage, percent::int, removes_members, is_withdrawal,
            started_at = sampled_at, last_insert_seq, bound_hash, bound_user_id, users_total,
            finished_at
        FROM rollout_passes ORDER BY segment_id
        """
    )
    assert [tuple(row) for row in passes] == [
        (number, 1, 25, False, state == "WITHDRAWING", True, 10, 20, 30, 50, None)
        for number, state in enumerate(STATES, start=1)
    ]


async def interrupt_after_one_chunk(settings: Settings, connect: Connect) -> None:
    """Start the migration, and terminate its session between the first two chunks."""
    sql, first, second = [await connect() for _ in range(3)]
    await second.execute("SET lock_timeout = 0")
    await first.execute(TAKE_CHUNK_LOCK)
    migration = asyncio.create_task(upgrade(settings))
    await until(lambda: sql.fetchval(MIGRATION_WAITS, "advisory"))
    # This waits in the queue behind the migration, whose first chunk comes next.
    queued = asyncio.create_task(second.execute(TAKE_CHUNK_LOCK))
    await until(
        lambda: sql.fetchval(
            "SELECT count(*) > 0 FROM pg_locks"
            " WHERE locktype = 'advisory' AND NOT granted AND pid = $1",
            second.get_server_pid(),
        )
    )
    await first.execute(RELEASE_CHUNK_LOCK)
    await queued
    await until(lambda: sql.fetchval(MIGRATION_WAITS, "advisory"))
    await sql.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {MIGRATION}")
    with pytest.raises(SQLAlchemyError):
        await migration
    numbered = await sql.fetchval(
        "SELECT count(*) FROM history WHERE position < $1", FIRST_NEW_POSITION
    )
    # All entries of one time and user are in one chunk.
    assert CHUNK_ROWS <= numbered < CHUNK_ROWS + 3
    assert await sql.fetchval("SELECT version_num FROM alembic_version") == "0008"
    await second.execute(RELEASE_CHUNK_LOCK)


# It takes some seconds, because it needs more than two chunks of migration 0009.
async def test_upgrade_keeps_every_row_while_clients_continue(
    servers: LocalServers, blank: Settings, connect: Connect
) -> None:
    sql = await connect()
    await make_old_database(blank, sql, rows=2 * CHUNK_ROWS + 5000)
    async with traffic_of_the_previous_version(servers, connect) as (traffic, tasks):
        await interrupt_after_one_chunk(blank, connect)
        partitions = tasks.create_task(make_partitions(await connect(servers.service_url), 2))
        await upgrade(blank)
        await partitions
        async with traffic_of_the_new_version(blank, traffic, tasks):
            await traffic.have_worked(2)
            traffic.stopped.set()
    await assert_upgraded(sql)
    await sql.execute("SELECT make_history_partitions('2031-05-01', 1)")
    await assert_index_is_complete(sql)


@pytest.mark.slow
async def test_upgrade_of_a_million_entries_survives_a_killed_process(
    servers: LocalServers, blank: Settings, connect: Connect
) -> None:
    sql = await connect()
    await make_old_database(blank, sql, rows=1_000_000)
    old_traffic = traffic_of_the_previous_version(servers, connect, long_reads=True)
    async with old_traffic as (traffic, tasks):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "segmentql", "migrate", env=environment(blank)
        )

        async def has_numbered() -> bool:
            numbered: bool = await sql.fetchval(
                "SELECT version_num = '0008' FROM alembic_version"
            ) and await sql.fetchval(
                "SELECT EXISTS (SELECT FROM history WHERE position < $1)", FIRST_NEW_POSITION
            )
            return numbered

        await until(has_numbered, seconds=120)
        process.kill()
        await process.wait()
        assert await sql.fetchval("SELECT version_num FROM alembic_version") == "0008"
        # No partition is made here: to move 200,000 entries out of DEFAULT locks readers out for
        # longer than they wait, with or without a migration.
        await upgrade(blank)
        async with traffic_of_the_new_version(blank, traffic, tasks):
            await traffic.have_worked(10)
            traffic.stopped.set()
    await assert_upgraded(sql)


async def test_downgrade_to_0007_and_upgrade_again_keeps_every_entry(
    blank: Settings, connect: Connect
) -> None:
    sql = await connect()
    await make_old_database(blank, sql, rows=100)
    await upgrade(blank)
    await sql.execute("DELETE FROM memberships WHERE user_id = 1")
    assert await sql.fetchval("SELECT max(position) FROM history") == FIRST_NEW_POSITION
    await asyncio.to_thread(migrations.downgrade, blank, "0007")
    await sql.execute("DELETE FROM memberships WHERE user_id = 3")
    await upgrade(blank)
    await sql.execute("DELETE FROM memberships WHERE user_id = 5")
    await assert_upgraded(sql)
    assert await sql.fetchval("SELECT max(position) FROM history") == FIRST_NEW_POSITION


async def test_writers_that_waited_for_the_migration_get_positions(
    servers: LocalServers, blank: Settings, connect: Connect
) -> None:
    sql, blocker = await connect(), await connect()
    await make_old_database(blank, sql, rows=4)
    writers = [await connect(servers.service_url) for _ in range(3)]
    for connection in writers:  # The sessions have the previous version of each function and plan.
        await connection.execute("SET lock_timeout = '20s'")
        await connection.execute(OLD_LOCK_AND_STORE_USER, 7)
        await connection.execute(OLD_UPDATE_MEMBERSHIPS, 7, 1, 2)
        await connection.execute(OLD_DELETE_USER, 7)
    before = await sql.fetchval("SELECT count(*) FROM history")
    # The migration has all its locks when it waits for this one, at its end.
    await blocker.execute("BEGIN; LOCK TABLE alembic_version IN SHARE MODE")
    migration = asyncio.create_task(upgrade(blank, "0008"))
    await until(lambda: sql.fetchval(MIGRATION_WAITS, "relation"))
    waiting = [
        asyncio.create_task(writers[0].execute(OLD_LOCK_AND_STORE_USER, 8)),
        # These wait for `history` and for `memberships`.
        asyncio.create_task(writers[1].execute(OLD_UPDATE_MEMBERSHIPS, 9, 1, 2)),
        asyncio.create_task(writers[2].execute("DELETE FROM memberships WHERE user_id = 1")),
    ]
    await until(
        lambda: blocker.fetchval(
            "SELECT count(*) = 3 FROM pg_stat_activity WHERE usename = 'segmentql_service' "
            "AND datname = current_database() AND wait_event_type = 'Lock'"
        )
    )
    await blocker.execute("COMMIT")
    await asyncio.gather(migration, *waiting)
    positions = await sql.fetch(
        "SELECT position FROM history WHERE position IS NOT NULL ORDER BY position"
    )
    assert [row["position"] for row in positions] == [FIRST_NEW_POSITION, FIRST_NEW_POSITION + 1]
    assert await sql.fetchval("SELECT count(*) FROM history") == before + 2


async def test_entry_of_the_previous_trigger_gets_its_position_by_default(
    blank: Settings, connect: Connect
) -> None:
    sql = await connect()
    await make_old_database(blank, sql, rows=4)
    old_function = await sql.fetchval("SELECT pg_get_functiondef('record_memberships'::regproc)")
    await upgrade(blank)
    assert "position" not in old_function
    await sql.execute(old_function)
    await sql.execute("DELETE FROM memberships WHERE user_id IN (1, 2)")
    positions = await sql.fetch(
        "SELECT position FROM history WHERE operation = 'LEFT' AND segment_id = 3 ORDER BY 1"
    )
    assert [row["position"] for row in positions] == [FIRST_NEW_POSITION, FIRST_NEW_POSITION + 1]


@pytest.mark.parametrize(("end", "operation"), [("COMMIT", "ADMITTED"), ("ROLLBACK", "EXCLUDED")])
async def test_admission_during_the_migration_follows_its_exclusion(
    blank: Settings, connect: Connect, end: str, operation: str
) -> None:
    sql, admitting = await connect(), await connect()
    await make_old_database(blank, sql, rows=4)
    await upgrade(blank, "0008")
    await admitting.execute("BEGIN; DELETE FROM exclusions WHERE user_id = 5")
    migration = asyncio.create_task(upgrade(blank))
    await until(lambda: sql.fetchval("SELECT count(*) = $1 FROM exclusion_log", EXCLUDED_USERS - 1))
    await admitting.execute(end)
    await migration
    entries = await sql.fetch("SELECT operation::text FROM exclusion_log WHERE user_id = 5")
    assert [row["operation"] for row in entries] == [operation]
    await assert_logs_are_complete(sql)
