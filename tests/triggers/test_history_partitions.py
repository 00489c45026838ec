"""The function that creates the partitions of history creates each month once, by UTC."""

from datetime import UTC, datetime

import asyncpg
import pytest

from tests.conftest import Sql
from tests.timeline import history_entries, make_segment, make_users
from tests.triggers.conftest import JOIN


async def test_partitions_are_created_in_public_for_any_search_path(sql: Sql, service: Sql) -> None:
    await service.execute("CREATE TEMP TABLE history_default (LIKE public.history)")
    await service.execute("CREATE TEMP TABLE history_2031_07 (LIKE public.history)")
    await service.execute("SET search_path = pg_temp, public")
    assert await service.fetchval("SELECT public.make_history_partitions('2031-07-01', 1)") == 1
    assert await sql.fetchval("SELECT to_regclass('public.history_2031_07') IS NOT NULL")


async def test_partitions_are_created_once(service: Sql) -> None:
    assert await service.fetchval("SELECT make_history_partitions('2032-11-17', 4)") == 4
    assert await service.fetchval("SELECT make_history_partitions('2032-11-01', 4)") == 0
    assert await service.fetchval("SELECT make_history_partitions('2033-02-28', 2)") == 1


async def test_new_partition_takes_its_rows_from_the_default_one(sql: Sql, service: Sql) -> None:
    segment_id = await make_segment(sql, "A")
    moments = {
        1: datetime(2034, 3, 31, 23, 59, 59, 999999, UTC),
        2: datetime(2034, 4, 1, tzinfo=UTC),
        3: datetime(2034, 4, 30, 23, 59, 59, 999999, UTC),
        4: datetime(2034, 5, 1, tzinfo=UTC),
    }
    await make_users(sql, *moments)
    for user_id, at in moments.items():
        await service.fetchval(JOIN, user_id, segment_id, at, None, "MANUAL", None)
    before = await history_entries(sql)
    statement = "SELECT user_id, tableoid::regclass::text FROM history ORDER BY user_id"
    assert {row[1] for row in await sql.fetch(statement)} == {"history_default"}
    assert await service.fetchval("SELECT make_history_partitions('2034-04-30', 1)") == 1
    assert [tuple(row) for row in await sql.fetch(statement)] == [
        (1, "history_default"),
        (2, "history_2034_04"),
        (3, "history_2034_04"),
        (4, "history_default"),
    ]
    assert await history_entries(sql) == before


@pytest.mark.parametrize(
    ("timezone", "datestyle", "year"),
    [
        ("UTC", "ISO", 2041),
        ("Pacific/Kiritimati", "ISO", 2042),
        ("America/St_Johns", "ISO", 2043),
        ("Asia/Kolkata", "SQL, DMY", 2044),
        ("Asia/Kolkata", "German", 2045),
    ],
)
async def test_partition_bounds_are_utc_for_any_time_zone(
    sql: Sql, service: Sql, timezone: str, datestyle: str, year: int
) -> None:
    await service.execute(f"SET timezone = '{timezone}'; SET datestyle = '{datestyle}'")
    await service.execute(f"SELECT make_history_partitions('{year}-12-01', 1)")
    await sql.execute("SET timezone = 'UTC'")
    bounds = await sql.fetchval(
        "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = $1",
        f"history_{year}_12",
    )
    assert bounds == (
        f"FOR VALUES FROM ('{year}-12-01 00:00:00+00') TO ('{year + 1}-01-01 00:00:00+00')"
    )


@pytest.mark.parametrize("months", [0, -1, 1201])
async def test_invalid_number_of_months_is_rejected(service: Sql, months: int) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="months must be 1 to 1200"):
        await service.execute("SELECT make_history_partitions('2035-01-01', $1)", months)
