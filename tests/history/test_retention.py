"""Old months of history are dropped, and writers and readers wait for it only briefly."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from segmentql import metrics
from segmentql.adapters.database import Database
from segmentql.errors import TimedOut
from segmentql.history.actors import RetentionContext, drop_old_history
from segmentql.history.retention import NotReady
from segmentql.local import LocalServers, with_database
from tests.back_dating import delete_segment_at, insert_membership, insert_past_membership
from tests.conftest import Sql, empty_tables, until
from tests.history.retention_helpers import (
    create_months,
    drop_before,
    drop_partitions,
    partitions,
    record_and_roll_up,
    start_of,
)
from tests.history.writers import Connect, join

DAY = timedelta(days=1)
ALL_MONTHS = ["history_2024_01", "history_2024_02", "history_2024_03", "history_2024_04"]


@pytest.fixture
async def months(sql: Sql, segment_id: int) -> AsyncIterator[None]:
    """Store entries in the partitions of 2024.

    User 1 has been a member since January, user 2 was one from January to March, user 3 in January,
    and user 4 in March.
    """
    await create_months(sql)
    await insert_membership(sql, 1, "A", joined_at=start_of(1) + DAY)
    for user_id, joined, left in ((2, 1, 3), (3, 1, 1), (4, 3, 3)):
        await insert_past_membership(
            sql, user_id, "A", joined_at=start_of(joined) + DAY, left_at=start_of(left) + 2 * DAY
        )
    yield
    await empty_tables(sql)
    await drop_partitions(sql)


async def test_dropped_months_keep_the_joins_of_active_memberships(
    sql: Sql, database: Database, months: None
) -> None:
    await record_and_roll_up(database)
    assert await drop_before(database, start_of(3)) == [2, 0]
    assert await partitions(sql) == {
        "history_2024_03": 3,
        "history_2024_04": 0,
        "history_kept_2024_01": 2,
    }
    assert await drop_before(database, start_of(3)) == []
    # User 2 left in March.
    assert await drop_before(database, start_of(4)) == [0]
    assert await partitions(sql) == {"history_2024_04": 0, "history_kept_2024_01": 1}
    kept = await sql.fetchrow("SELECT * FROM history")
    assert kept is not None
    assert (kept["user_id"], kept["operation"]) == (1, "JOINED")


async def test_sums_of_dropped_hours_are_one_sum(
    sql: Sql, database: Database, months: None, segment_id: int
) -> None:
    await record_and_roll_up(database)
    await drop_before(database, start_of(3))
    sums = "SELECT segment_id, joins, leaves FROM member_count_hours"
    earlier = await sql.fetch(f"{sums} WHERE hour < $1", start_of(3))
    assert [tuple(row) for row in earlier] == [(segment_id, 3, 1)]
    await drop_before(database, start_of(4))
    assert [tuple(row) for row in await sql.fetch(sums)] == [(segment_id, 4, 3)]


async def test_dropped_months_are_not_created_again(
    sql: Sql, database: Database, months: None
) -> None:
    await record_and_roll_up(database)
    await drop_before(database, start_of(3))
    assert await sql.fetchval("SELECT make_history_partitions('2023-11-01', 6)") == 0
    await insert_past_membership(
        sql, 5, "A", joined_at=start_of(1) + DAY, left_at=start_of(2) + DAY
    )
    await record_and_roll_up(database)
    assert await drop_before(database, start_of(4)) == [0]
    assert await sql.fetchval("SELECT count(*) FROM history") == 1


async def test_unfinished_work_postpones_the_drop(
    sql: Sql, database: Database, months: None, segment_id: int
) -> None:
    """A leave that is not recorded, of an expired membership or of a deleted segment, and entries
    that are not in the sums of member counts."""
    before = await partitions(sql)
    with pytest.raises(NotReady, match="to the sums"):
        await drop_before(database, start_of(3))
    await insert_membership(sql, 6, "A", joined_at=start_of(1) + DAY, expires_at=start_of(2) + DAY)
    with pytest.raises(NotReady, match="not recorded"):
        await drop_before(database, start_of(3))
    await record_and_roll_up(database)
    await sql.execute("UPDATE segments SET created_at = $1", start_of(1))
    await delete_segment_at(sql, "A", start_of(2) + 5 * DAY)
    with pytest.raises(NotReady, match="not recorded"):
        await drop_before(database, start_of(3))
    assert (await partitions(sql)).keys() == before.keys()


@pytest.mark.parametrize("earliest", ["2024-03-02", "2024-03-01 01:00", "2999-01-01"])
async def test_function_rejects_a_time_within_or_after_the_previous_month(
    connect: Connect, months: None, earliest: str
) -> None:
    service = await connect()
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await service.fetchval("SELECT prune_history($1::text::timestamptz)", f"{earliest}Z")
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await service.fetchval("SELECT drop_history_month('2024-03-01')")


async def test_service_cannot_drop_history_otherwise(connect: Connect, months: None) -> None:
    service = await connect()
    for statement in (
        "UPDATE dropped_history SET dropped_position = 0",
        "DROP TABLE history_2024_01",
        "DELETE FROM history",
        "SELECT check_history_is_complete(now())",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await service.execute(statement)


async def test_job_drops_the_months_before_the_retention(
    sql: Sql, database: Database, months: None
) -> None:
    await record_and_roll_up(database)
    await drop_old_history(RetentionContext(database, 0))
    assert list(await partitions(sql)) == ALL_MONTHS
    dropped = metrics.HISTORY_PARTITIONS_DROPPED._value.get()
    age = "SELECT 12 * extract(year FROM age) + extract(month FROM age) FROM "
    months_ago = int(
        await sql.fetchval(
            f"{age} age(date_trunc('month', now() AT TIME ZONE 'UTC'), '2024-03-01') AS age"
        )
    )
    await drop_old_history(RetentionContext(database, months_ago))
    assert list(await partitions(sql)) == [*ALL_MONTHS[2:], "history_kept_2024_01"]
    assert metrics.HISTORY_PARTITIONS_DROPPED._value.get() == dropped + 2


async def test_job_counts_a_postponed_drop(database: Database, months: None) -> None:
    postponed = metrics.HISTORY_DROPS_POSTPONED._value.get()
    await drop_old_history(RetentionContext(database, 1))  # nothing is rolled up
    assert metrics.HISTORY_DROPS_POSTPONED._value.get() == postponed + 1


async def test_drop_waits_for_a_writer_and_lets_others_write(
    sql: Sql, database: Database, connect: Connect, months: None, segment_id: int
) -> None:
    """While the drop pauses between two attempts, it blocks nobody."""
    await record_and_roll_up(database)
    slow, other = await connect(), await connect()
    await slow.execute("BEGIN")
    await join(slow, 7, segment_id)
    dropping = asyncio.create_task(drop_before(database, start_of(2)))

    async def is_pausing() -> bool:
        return bool(
            await sql.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        )

    await until(is_pausing)
    await other.execute("SET lock_timeout = '2s'")  # longer than an attempt, which is 50 ms
    await join(other, 8, segment_id)
    assert "history_2024_01" in await partitions(sql)
    await slow.execute("COMMIT")
    assert await dropping == [2]


@pytest.mark.slow  # all attempts take about 30 s
async def test_drop_gives_up_when_a_transaction_uses_history_for_long(
    sql: Sql, database: Database, connect: Connect, months: None
) -> None:
    await record_and_roll_up(database)
    reader = await connect()
    await reader.execute("BEGIN")
    await reader.fetch("SELECT FROM history LIMIT 1")
    with pytest.raises(TimedOut):
        await drop_before(database, start_of(2))
    assert list(await partitions(sql)) == ALL_MONTHS
    await reader.execute("COMMIT")
    assert await drop_before(database, start_of(2)) == [2]


async def test_killed_drop_changes_nothing_and_the_next_one_completes(
    servers: LocalServers, sql: Sql, database: Database, months: None
) -> None:
    """The backend is killed after the partition was detached and dropped, before the commit."""
    await record_and_roll_up(database)
    owner = await asyncpg.connect(with_database(servers.owner_url, "run"))
    await owner.fetchval("SELECT prune_history($1)", start_of(3))
    await owner.execute("BEGIN")
    assert await owner.fetchval("SELECT drop_history_month('2024-01-01')") == 2
    await sql.execute("SELECT pg_terminate_backend($1)", owner.get_server_pid())
    owner.terminate()
    assert list(await partitions(sql)) == ALL_MONTHS
    orphans = "SELECT count(*) FROM pg_class WHERE relname LIKE 'history\\_kept%'"
    assert await sql.fetchval(orphans) == 0
    async with asyncio.timeout(10):
        await drop_before(database, start_of(3))
    assert list(await partitions(sql)) == [*ALL_MONTHS[2:], "history_kept_2024_01"]


async def test_reader_that_waits_for_the_drop_sees_the_kept_joins(
    servers: LocalServers, sql: Sql, database: Database, connect: Connect, months: None
) -> None:
    await record_and_roll_up(database)
    reader = await connect()
    query = "SELECT count(*) FROM history WHERE user_id = $1 AND operation = 'JOINED'"
    for _ in range(6):  # the plan is cached
        assert await reader.fetchval(query, 1) == 1
    owner = await asyncpg.connect(with_database(servers.owner_url, "run"))
    await owner.fetchval("SELECT prune_history($1)", start_of(2))

    async def is_waiting() -> bool:
        return bool(await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

    try:
        async with owner.transaction():
            await owner.fetchval("SELECT drop_history_month('2024-01-01')")
            reading = asyncio.create_task(reader.fetchval(query, 1))
            await until(is_waiting)
        assert await reading == 1
    finally:
        await owner.close()
