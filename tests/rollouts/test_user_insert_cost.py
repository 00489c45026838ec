"""What storing a user costs: nothing that grows with segments that have no rollout going on."""

import pytest

from segmentql.adapters.database import Database
from tests.conftest import Sql
from tests.rollouts.helpers import enrolling, store_users

ROWS_READ = """
SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables
WHERE relname IN ('segments', 'rollouts', 'rollout_stages', 'memberships', 'exclusions')
"""

ADDED = 2000
FEW = 10
"""A join may look at the first row of a table, to know whether there is one: no more than that."""


async def rows_read(sql: Sql) -> dict[str, int]:
    """How many rows of each table storing a user reads, by PostgreSQL's own count."""
    async with sql.transaction():
        number = 1 + await sql.fetchval("SELECT coalesce(max(id), 0) FROM users")
        before = {row[0]: row[1] for row in await sql.fetch(ROWS_READ)}
        await store_users(sql, 1, first=number)
        return {row[0]: row[1] - before[row[0]] for row in await sql.fetch(ROWS_READ)}


async def always_read(sql: Sql) -> dict[str, int]:
    """The same, once the plan is one that a connection keeps (after five, from then on)."""
    return [await rows_read(sql) for _ in range(8)][-1]


async def grew(sql: Sql, alone: dict[str, int]) -> set[str]:
    """The tables of which storing a user reads more now than it did."""
    return {table for table, rows in (await always_read(sql)).items() if rows > alone[table] + FEW}


@pytest.mark.parametrize("percent", [None, 100])
async def test_what_storing_a_user_reads_does_not_grow_with_segments_without_a_rollout(
    sql: Sql, database: Database, percent: int | None
) -> None:
    if percent is not None:
        await enrolling(sql, database, "A", percent)
    alone = await always_read(sql)
    await sql.execute(
        "INSERT INTO segments (slug, created_at, updated_at) "
        "SELECT 'S' || n, now(), now() FROM generate_series(1, $1) AS n",
        ADDED,
    )
    assert await grew(sql, alone) == set()
    await sql.execute("ANALYZE segments, rollouts, rollout_stages")  # which has plans made anew
    assert await grew(sql, alone) == set()


async def test_what_storing_a_user_reads_does_not_grow_with_rollouts_that_are_cancelled(
    sql: Sql, database: Database
) -> None:
    segment_id = await enrolling(sql, database, "A", 100)
    alone = await always_read(sql)
    await sql.execute(
        f"""
        INSERT INTO segments (slug, created_at, updated_at)
        SELECT 'S' || n, now(), now() FROM generate_series(1, {ADDED}) AS n;
        CREATE TEMP TABLE copies AS SELECT * FROM rollouts;
        UPDATE copies SET state = 'CANCELLED', held_at = now();
        """
    )
    await sql.execute(
        """
        INSERT INTO rollouts SELECT (jsonb_populate_record(
            copies, jsonb_build_object('segment_id', s.id))).*
        FROM copies, segments s WHERE s.id <> $1
        """,
        segment_id,
    )
    await sql.execute(
        """
        INSERT INTO rollout_stages (segment_id, number, percent, starts_at)
        SELECT segment_id, 1, 100, now() FROM rollouts WHERE segment_id <> $1
        """,
        segment_id,
    )
    await sql.execute("ANALYZE segments, rollouts, rollout_stages")
    assert await grew(sql, alone) == set()
