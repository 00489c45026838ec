"""Compares reports with `psql \\copy`, and measures memory and reads during reports."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from bench import psql, servers
from bench.comparison import WrongResponse, compare, load_measurement, with_background_work
from bench.databases import Connection, cloned_database, superuser_connection
from bench.http import graphql_client
from bench.load import Load
from bench.memory import SIZE_FACTOR, memory_row
from bench.plan import Benchmark
from bench.servers import Server
from bench.table import Row
from segmentql.local import ChildProcess, with_database
from segmentql.reports.csv_export import csv_statement
from segmentql.reports.records import ReportScope
from segmentql.settings import Settings

READS_PER_SECOND: Final = 300
CONCURRENT_REPORTS: Final = 100
"""The number of concurrent reports while reads are measured."""

REPEATS: Final = 3
"""The number of reports and of copies per slice. One takes about a second, and varies by half."""

USERS_OF_MONTH: Final = 50_000
TIMEOUT_SECONDS: Final = 300
MONTH: Final = ReportScope(2020, 1, None)
LARGE_MONTH: Final = ReportScope(2020, 2, None)
SMALL_MONTH: Final = ReportScope(2020, 3, None)

CREATE: Final = """
mutation($user: ID, $year: Int!, $month: Int!) {
  createReport(input: {userId: $user, year: $year, month: $month, waitSeconds: 60}) {
    report { id status rowCount } errors { message }
  }
}
"""

READ: Final = "query($id: ID!) { report(id: $id) { id status rowCount failure } }"

# Joins and leaves of alternating users at regular intervals, so that the rows are not sorted.
FILL: Final = """
INSERT INTO history (user_id, at, segment_id, operation, membership_id, cause, recorded_at)
SELECT 1 + n * 7919 % $2, make_date(2020, $3, 1) + n * interval '28 days' / $1,
    (SELECT min(id) FROM segments) + n % 10, CASE n % 2 WHEN 0 THEN 'JOINED' ELSE 'LEFT' END
    ::operation, n, 'MANUAL', now()
FROM generate_series(0::bigint, $1 - 1) AS n
"""


async def measure(bench: Benchmark) -> AsyncIterator[Row]:
    rows = bench.plan.report_rows
    bench.print_line(f"reports of {rows:,} rows")
    async with cloned_database(bench.servers, bench.main) as clone:
        settings = bench.servers.settings(clone)
        await servers.set_up_bucket(settings)
        async with (
            superuser_connection(bench.servers, clone) as sql,
            servers.run_api(bench.servers, settings, "bench-api") as api,
        ):
            await _fill(sql, MONTH, rows)
            await _fill(sql, SMALL_MONTH, rows // SIZE_FACTOR)
            async with servers.run_worker(bench.servers, settings) as worker:
                yield await _compare_with_psql(bench, clone, api, worker)
                bench.print_line(
                    f"reads at {READS_PER_SECOND} req/s beside {CONCURRENT_REPORTS} reports"
                )
                yield await _reads_during_reports(bench, api)
            async for row in _memory(bench, settings, sql, api):
                yield row


async def _fill(sql: Connection, month: ReportScope, rows: int) -> None:
    await sql.execute("SELECT make_history_partitions(make_date(2020, $1, 1), 1)", month.month)
    await sql.execute(FILL, rows, USERS_OF_MONTH, month.month)
    await sql.execute("VACUUM (ANALYZE)")


async def _create_report(api: Server, scope: ReportScope) -> Any:
    """Request a report, wait until it is ready, and return the fields of the API."""
    async with graphql_client(api.port) as client:
        data = await client(CREATE, user=scope.user_id, year=scope.year, month=scope.month)
        report = data["createReport"]["report"]
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while report["status"] in {"QUEUED", "RUNNING"} and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
            report = (await client(READ, id=report["id"]))["report"]
    if report["status"] != "READY":
        raise WrongResponse(f"a report did not become ready: {report}")
    return report


async def _compare_with_psql(
    bench: Benchmark, database: str, api: Server, worker: ChildProcess
) -> Row:
    rows = bench.plan.report_rows

    async def ours(number: int) -> Mapping[str, float]:
        started = time.monotonic()
        report = await _create_report(api, MONTH)
        seconds = time.monotonic() - started
        if report["rowCount"] != rows:
            raise WrongResponse(
                worker.error_message(f"a report has {report['rowCount']} rows, not {rows}")
            )
        return {"seconds": seconds}

    async def theirs(number: int) -> Mapping[str, float]:
        started = time.monotonic()
        await _psql_copy(bench, database)
        return {"seconds": time.monotonic() - started}

    for warm_up in (ours, theirs):
        await warm_up(0)
    results = await compare(REPEATS * bench.plan.slices, {"ours": ours, "theirs": theirs})
    seconds = {name: values["seconds"] for name, values in results.items()}
    return Row(
        name=f"a report of {rows:,} rows, from the request until ready",
        ours=f"{seconds['ours']:.1f} s",
        compared=f"psql \\copy into a file: {seconds['theirs']:.1f} s",
        value=seconds["ours"] / seconds["theirs"],
        max_value=1.3,
        details=seconds,
    )


async def _psql_copy(bench: Benchmark, database: str) -> None:
    statement, arguments = csv_statement(MONTH)
    target = bench.folder / "psql-copy.csv"
    try:
        url = with_database(bench.servers.service_url, database)
        await psql.copy_to_file(url, statement, arguments, target)
    finally:
        target.unlink(missing_ok=True)


async def _reads_during_reports(bench: Benchmark, api: Server) -> Row:
    plan = bench.plan
    load = load_measurement(
        api,
        Load(
            port=api.port,
            request="OneUser",
            sizes=plan.main,
            rate=READS_PER_SECOND,
            seconds=2 * plan.slice_seconds,
            warm_up_seconds=plan.warm_up_seconds,
            check_every=plan.check_every,
            max_requests=plan.max_slice_requests,
        ),
    )

    async def create_reports(number: int) -> None:
        users = range(1, CONCURRENT_REPORTS + 1)
        await asyncio.gather(
            *(
                _create_report(api, ReportScope(MONTH.year, MONTH.month, user_id))
                for user_id in users
            )
        )

    results = await compare(
        plan.slices, {"idle": load, "loaded": with_background_work(load, create_reports)}
    )
    idle, loaded = results["idle"], results["loaded"]
    return Row(
        name=f"p99 of a read at {READS_PER_SECOND} req/s beside {CONCURRENT_REPORTS} reports",
        ours=f"{loaded['p99_ms']:.1f} ms",
        compared=f"idle: {idle['p99_ms']:.1f} ms",
        value=loaded["p99_ms"] - idle["p99_ms"],
        unit="ms more",
        max_value=20,
        details=results,
    )


async def _memory(
    bench: Benchmark, settings: Settings, sql: Connection, api: Server
) -> AsyncIterator[Row]:
    """Compare the peak memory of two workers, each of which generates one report."""
    small, large = SMALL_MONTH, MONTH
    rows = bench.plan.report_rows
    if bench.plan.large:
        small, large, rows = MONTH, LARGE_MONTH, SIZE_FACTOR * rows
        await _fill(sql, LARGE_MONTH, rows)
    peaks: list[float | None] = []
    for month in (small, large):
        async with servers.run_worker(bench.servers, settings) as worker:
            await _create_report(api, month)
            peaks.append(servers.peak_memory_mb(worker))
    yield memory_row("report", "rows", rows, peaks)
