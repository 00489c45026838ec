"""A report has the entries of its month in a fixed order and format."""

import asyncio
import re
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from segmentql.adapters.database import Database
from segmentql.errors import TimedOut, Unavailable
from segmentql.reports.csv_export import CsvExport, count_rows, csv_statement
from segmentql.reports.records import ReportScope
from tests.back_dating import (
    MICROSECOND,
    delete_segment_at,
    insert_membership,
    insert_past_membership,
)
from tests.conftest import Api, Sql, until
from tests.operations import make_segments
from tests.reports.conftest import ROWS

MARCH = datetime(2024, 3, 1, tzinfo=UTC)
APRIL = datetime(2024, 4, 1, tzinfo=UTC)
HEADER = "user_id,segment_slug,operation,executed_at"


async def csv_of(database: Database, scope: ReportScope) -> bytes:
    async with database.long_read(seconds=30) as session:
        csv = CsvExport(session, scope)
        csv_bytes = b"".join([chunk async for chunk in csv.chunks()])
        assert csv.rows == csv_bytes.count(b"\n") - 1
        assert csv.rows == await count_rows(session, scope)
    return csv_bytes


async def lines(
    database: Database, *, year: int = 2024, month: int = 3, user_id: int | None = None
) -> list[str]:
    text = (await csv_of(database, ReportScope(year, month, user_id))).decode()
    assert text.endswith("\n")
    header, *rows = text.removesuffix("\n").split("\n")
    assert header == HEADER
    return rows


async def test_month_without_history_has_only_the_header(database: Database) -> None:
    assert await csv_of(database, ReportScope(2024, 3, None)) == f"{HEADER}\n".encode()
    assert await csv_of(database, ReportScope(2024, 3, 1)) == f"{HEADER}\n".encode()


async def test_timestamps_are_utc_truncated_to_the_second(
    database: Database, api: Api, sql: Sql
) -> None:
    await make_segments(api, "a")
    at = datetime(2024, 3, 9, 23, 59, 59, 999999, tzinfo=UTC)
    await sql.execute("SET timezone = 'Asia/Tokyo'")
    await insert_past_membership(sql, 7, "a", joined_at=at, left_at=at + timedelta(days=1))
    assert await lines(database) == ["7,a,I,2024-03-09 23:59:59", "7,a,D,2024-03-10 23:59:59"]


async def test_month_includes_its_first_moment_and_excludes_the_next(
    database: Database, api: Api, sql: Sql
) -> None:
    await make_segments(api, "a")
    await insert_past_membership(sql, 1, "a", joined_at=MARCH - MICROSECOND, left_at=MARCH)
    await insert_past_membership(sql, 2, "a", joined_at=APRIL - MICROSECOND, left_at=APRIL)
    assert await lines(database) == ["1,a,D,2024-03-01 00:00:00", "2,a,I,2024-03-31 23:59:59"]
    assert await lines(database, month=4) == ["2,a,D,2024-04-01 00:00:00"]


async def test_december_ends_with_the_year(database: Database, api: Api, sql: Sql) -> None:
    await make_segments(api, "a")
    new_year = datetime(2025, 1, 1, tzinfo=UTC)
    await insert_past_membership(sql, 1, "a", joined_at=new_year - MICROSECOND, left_at=new_year)
    assert await lines(database, month=12) == ["1,a,I,2024-12-31 23:59:59"]
    assert await lines(database, year=2025, month=1) == ["1,a,D,2025-01-01 00:00:00"]
    assert await lines(database, year=9999, month=12) == []


async def test_rows_are_ordered_by_time_user_operation_and_slug(
    database: Database, api: Api, sql: Sql
) -> None:
    await make_segments(api, "B", "a", "c")
    before = MARCH - timedelta(days=1)
    await insert_past_membership(sql, 2, "c", joined_at=before, left_at=MARCH)
    await insert_past_membership(sql, 2, "a", joined_at=MARCH, left_at=MARCH + timedelta(seconds=2))
    await insert_past_membership(sql, 2, "B", joined_at=MARCH, left_at=MARCH + timedelta(seconds=2))
    await insert_past_membership(sql, 1, "a", joined_at=MARCH, left_at=MARCH + timedelta(seconds=1))
    assert await lines(database) == [
        "1,a,I,2024-03-01 00:00:00",
        "2,c,D,2024-03-01 00:00:00",
        "2,B,I,2024-03-01 00:00:00",
        "2,a,I,2024-03-01 00:00:00",
        "1,a,D,2024-03-01 00:00:01",
        "2,B,D,2024-03-01 00:00:02",
        "2,a,D,2024-03-01 00:00:02",
    ]


async def test_report_on_a_user_has_only_the_rows_of_that_user(
    database: Database, api: Api, sql: Sql
) -> None:
    await make_segments(api, "a")
    for user_id in (1, 11, 111):
        await insert_past_membership(sql, user_id, "a", joined_at=MARCH, left_at=APRIL)
    assert await lines(database, user_id=11) == ["11,a,I,2024-03-01 00:00:00"]


async def test_unrecorded_leaves_are_included(database: Database, api: Api, sql: Sql) -> None:
    await make_segments(api, "ttl", "gone", "both")
    end = MARCH + timedelta(days=3)
    await insert_membership(sql, 1, "ttl", joined_at=MARCH, expires_at=end)
    await insert_membership(sql, 2, "gone", joined_at=MARCH)
    # One membership expired before the segment was deleted, and one after.
    await insert_membership(sql, 3, "both", joined_at=MARCH, expires_at=end)
    await insert_membership(sql, 4, "both", joined_at=MARCH, expires_at=end + timedelta(days=9))
    for slug in ("gone", "both"):
        await delete_segment_at(sql, slug, end + timedelta(days=1))
    expected = [
        *(
            f"{user},{slug},I,2024-03-01 00:00:00"
            for user, slug in ((1, "ttl"), (2, "gone"), (3, "both"), (4, "both"))
        ),
        "1,ttl,D,2024-03-04 00:00:00",
        "3,both,D,2024-03-04 00:00:00",
        "2,gone,D,2024-03-05 00:00:00",
        "4,both,D,2024-03-05 00:00:00",
    ]
    assert await lines(database) == expected
    assert await lines(database, user_id=4) == [row for row in expected if row[0] == "4"]
    # After recording, the rows are the same.
    await sql.execute("DELETE FROM memberships")
    assert await lines(database) == expected


async def test_report_reads_only_the_partition_of_its_month(database: Database, sql: Sql) -> None:
    month = await sql.fetchval("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM')")
    year, number = map(int, month.split("-"))
    await sql.execute("SELECT make_history_partitions(now()::date, 3)")
    for user_id in (None, 1):
        statement, arguments = csv_statement(ReportScope(year, number, user_id))
        plan = await sql.fetch(f"EXPLAIN {statement}", *arguments)
        partition = f"history_{year:04}_{number:02}"
        scanned = re.findall(r"Scan.* on (history\w*)", "\n".join(row[0] for row in plan))
        assert scanned
        assert [name for name in scanned if not name.startswith(partition)] == []


async def _is_blocked(sql: Sql) -> bool:
    """Return whether a COPY waits for its reader, which takes more data than buffers hold."""
    waiting: bool = await sql.fetchval("""
        SELECT count(*) > 0 FROM pg_stat_activity
        WHERE query LIKE 'COPY%' AND state = 'active' AND wait_event = 'ClientWrite'
    """)
    return waiting


@pytest.mark.usefixtures("many_joins")
async def test_report_is_a_consistent_snapshot(database: Database, api: Api, sql: Sql) -> None:
    """Its reader is slow, and rows that are written in the meantime are not in the report."""
    await make_segments(api, "b")
    async with database.long_read(seconds=30) as session:
        csv = CsvExport(session, ReportScope(2024, 3, None), chunks_ahead=1).chunks()
        chunks = [await anext(csv)]
        await until(lambda: _is_blocked(sql))
        await insert_past_membership(sql, 7, "b", joined_at=MARCH, left_at=APRIL - MICROSECOND)
        assert await _is_blocked(sql)
        chunks += [chunk async for chunk in csv]
    rows = b"".join(chunks).splitlines()[1:]
    assert len(rows) == ROWS
    assert {row.split(b",")[1] for row in rows} == {b"a"}
    assert await lines(database, user_id=7) == [
        "7,b,I,2024-03-01 00:00:00",
        "7,a,I,2024-03-01 00:00:07",
        "7,b,D,2024-03-31 23:59:59",
    ]


@pytest.mark.usefixtures("many_joins")
async def test_closing_the_reader_cancels_the_copy(database: Database, sql: Sql) -> None:
    reader = asyncio.create_task(_read_one_chunk_and_wait(database))
    await until(lambda: _is_blocked(sql))
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader

    async def has_ended() -> bool:
        return not await _is_blocked(sql)

    await until(has_ended)


async def _read_slowly(
    database: Database, *, seconds: float, sql: Sql, statement_during_read: str
) -> None:
    async with (
        database.long_read(seconds=seconds) as session,
        aclosing(CsvExport(session, ReportScope(2024, 3, None)).chunks()) as chunks,
    ):
        async for _ in chunks:
            await sql.execute(statement_during_read)


@pytest.mark.usefixtures("many_joins")
async def test_database_outage_during_the_copy_raises(database: Database, sql: Sql) -> None:
    terminate = (
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE query LIKE 'COPY%'"
    )
    with pytest.raises(Unavailable):
        await _read_slowly(database, seconds=30, sql=sql, statement_during_read=terminate)


@pytest.mark.usefixtures("many_joins")
async def test_report_beyond_its_time_limit_is_cancelled(database: Database, sql: Sql) -> None:
    with pytest.raises(TimedOut):
        await _read_slowly(
            database, seconds=0.5, sql=sql, statement_during_read="SELECT pg_sleep(0.1)"
        )


@pytest.mark.usefixtures("many_joins")
async def test_error_of_the_reader_is_not_a_database_error(database: Database, sql: Sql) -> None:
    with pytest.raises(asyncpg.UndefinedColumnError):
        await _read_slowly(database, seconds=30, sql=sql, statement_during_read="SELECT nonsense")


async def _read_one_chunk_and_wait(database: Database) -> None:
    async with (
        database.long_read(seconds=30) as session,
        aclosing(CsvExport(session, ReportScope(2024, 3, None), chunks_ahead=1).chunks()) as chunks,
    ):
        async for _ in chunks:
            await asyncio.Event().wait()
