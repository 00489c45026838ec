"""Rows that move to a new partition stay visible to readers that run at the same time."""

import asyncio

import asyncpg
import pytest

from segmentql.local import LocalServers, with_database
from tests.conftest import Sql, until
from tests.history.writers import Connect


@pytest.mark.parametrize("case", [("2035-01-01", 0), ("2035-02-01", 1)])
async def test_reader_that_waits_for_a_new_partition_sees_the_moved_rows(
    servers: LocalServers,
    sql: Sql,
    connect: Connect,
    segment_id: int,
    case: tuple[str, int],
) -> None:
    """Otherwise it has planned without the new partition, and the old one is empty."""
    month, earlier_reads = case
    await sql.execute(
        """
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
        VALUES (1, $1, $2::text::timestamptz, $2::text::timestamptz, 'MANUAL')
        """,
        segment_id,
        month,
    )
    reader = await connect()
    rows = "SELECT count(*) FROM history WHERE position <= $1"
    for _ in range(earlier_reads):  # the statement is prepared
        await reader.fetchval(rows, 2**62)
    owner = await asyncpg.connect(with_database(servers.owner_url, "run"))

    async def is_waiting() -> bool:
        return bool(await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

    try:
        async with owner.transaction():
            await owner.fetchval("SELECT make_history_partitions($1::text::date, 1)", month)
            reading = asyncio.create_task(reader.fetchval(rows, 2**62))
            await until(is_waiting)
        assert await reading == 1
    finally:
        await owner.close()
