"""The cost of storing a user does not grow with segments that have no active rollout."""

import pytest

from segmentql.adapters.database import Database
from tests.conftest import Sql
from tests.rollouts.helpers import create_enrolling_segment, store_users

ROWS_READ = """
SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables
WHERE relname IN ('segments', 'rollouts', 'rollout_stages', 'memberships', 'exclusions')
"""

ADDED = 2000
FEW = 10
"""Tolerance: a join may read a few rows of a table to find out whether it is empty."""


async def rows_read(sql: Sql) -> dict[str, int]:
    """Return how many rows of each table PostgreSQL reads when it stores a user."""
    async with sql.transaction():
        number = 1 + await sql.fetchval("SELECT coalesce(max(id), 0) FROM users")
        before = {row[0]: row[1] for row in await sql.fetch(ROWS_READ)}
        await store_users(sql, 1, first=number)
        return {row[0]: row[1] - before[row[0]] for row in await sql.fetch(ROWS_READ)}


async def always_read(sql: Sql) -> dict[str, int]:
    """Return the same with the generic query plan, used after five executions."""
    return [await rows_read(sql) for _ in range(8)][-1]


async def grew(sql: Sql, alone: dict[str, int]) -> set[str]:
    """Return the tables of which storing a user now reads more rows than before."""
    return {table for table, rows in (await always_read(sql)).items() if rows > alone[table] + FEW}


@pytest.mark.parametrize("percent", [None, 100])
async def test_insert_cost_is_independent_of_segments_without_rollout(
    sql: Sql, database: Database, percent: int | None
) -> None:
    if percent is not None:
        await create_enrolling_segment(sql, database, "A", percent)
    alone = await always_read(sql)
    await sql.execute(
        "INSERT INTO segments (slug, created_at, updated_at) "
        "SELECT 'S' || n, now(), now() FROM generate_series(1, $1) AS n",
        ADDED,
    )
    assert await grew(sql, alone) == set()
    await sql.execute("ANALYZE segments, rollouts, rollout_stages")  # this discards cached plans
    assert await grew(sql, alone) == set()


async def test_insert_cost_is_independent_of_cancelled_rollouts(
    sql: Sql, database: Database
) -> None:
    segment_id = await create_enrolling_segment(sql, database, "A", 100)
    alone = await always_read(sql)
    await sql.execute(
        f"""
        INSERT INTO segments (slug, created_at, updated_at)
        SELECT 'S' || n, now(), now() FROM generate_series(1, {ADDED}) AS n;
        CREATE TEMP TABLE copies AS SELECT * FROM rollouts;
        UPDATE copies SET state = 'CANCELLED', paused_at = now();
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
