"""Reports: beside `psql \\copy`, the worker's memory, and what reads feel of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from sqlalchemy.engine import make_url

from bench import servers
from bench.comparison import WrongAnswer, contest, loaded, while_working
from bench.databases import Connection, cloned, connected
from bench.http import asking
from bench.load import Load
from bench.plan import Bench
from bench.servers import Server
from bench.table import Row
from segmentql.adapters.storage import Storage
from segmentql.local import ChildProcess, with_database
from segmentql.local.accounts import server_account
from segmentql.local.binaries import find_postgres_bin
from segmentql.reports.csv_export import csv_statement
from segmentql.reports.records import ReportScope
from segmentql.settings import Settings, child_environment

READS_A_SECOND: Final = 300
AT_ONCE: Final = 100
"""Reports that are asked for together while reads are measured."""

TRIES: Final = 3
"""Reports and copies in a slice: one takes a second only, and the next up to half as long again."""

USERS_OF_MONTH: Final = 50_000
DONE_SECONDS: Final = 300
MEMORY_MB: Final = 150
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

# A join or a leave every so often, by users in turn, so that the file has no order of its own.
FILL: Final = """
INSERT INTO history (user_id, at, segment_id, operation, membership_id, cause, recorded_at)
SELECT 1 + n * 7919 % $2, make_date(2020, $3, 1) + n * interval '28 days' / $1,
    (SELECT min(id) FROM segments) + n % 10, CASE n % 2 WHEN 0 THEN 'JOINED' ELSE 'LEFT' END
    ::operation, n, 'MANUAL', now()
FROM generate_series(0::bigint, $1 - 1) AS n
"""


async def measure(bench: Bench) -> AsyncIterator[Row]:
    rows = bench.plan.report_rows
    bench.say(f"reports of {rows:,} rows")
    async with cloned(bench.servers, bench.main) as clone:
        settings = bench.servers.settings(clone)
        await _set_up_bucket(settings)
        async with (
            connected(bench.servers, clone) as sql,
            servers.api(bench.servers, settings, "bench-api") as api,
        ):
            await _fill(sql, MONTH, rows)
            await _fill(sql, SMALL_MONTH, rows // 10)
            async with servers.worker(bench.servers, settings) as worker:
                yield await _beside_copy(bench, clone, api, worker)
                bench.say(f"reads at {READS_A_SECOND} req/s while {AT_ONCE} reports are made")
                yield await _reads_meanwhile(bench, api)
            async for row in _memory(bench, settings, sql, api):
                yield row


async def _set_up_bucket(settings: Settings) -> None:
    storage = Storage(settings)
    await storage.set_up()
    await storage.close()


async def _fill(sql: Connection, month: ReportScope, rows: int) -> None:
    await sql.execute("SELECT make_history_partitions(make_date(2020, $1, 1), 1)", month.month)
    await sql.execute(FILL, rows, USERS_OF_MONTH, month.month)
    await sql.execute("VACUUM (ANALYZE)")


async def _report(api: Server, contents: ReportScope) -> Any:
    """Ask for a report and wait until it is ready; what the API says of it."""
    async with asking(api.port) as ask:
        asked = await ask(CREATE, user=contents.user_id, year=contents.year, month=contents.month)
        report = asked["createReport"]["report"]
        give_up_at = time.monotonic() + DONE_SECONDS
        while report["status"] in {"QUEUED", "RUNNING"} and time.monotonic() < give_up_at:
            await asyncio.sleep(0.05)
            report = (await ask(READ, id=report["id"]))["report"]
    if report["status"] != "READY":
        raise WrongAnswer(f"a report did not become ready: {report}")
    return report


async def _beside_copy(bench: Bench, database: str, api: Server, worker: ChildProcess) -> Row:
    rows = bench.plan.report_rows

    async def ours(number: int) -> Mapping[str, float]:
        begun = time.monotonic()
        report = await _report(api, MONTH)
        seconds = time.monotonic() - begun
        if report["rowCount"] != rows:
            raise WrongAnswer(
                worker.error_message(f"a report has {report['rowCount']} rows, not {rows}")
            )
        return {"seconds": seconds}

    async def theirs(number: int) -> Mapping[str, float]:
        begun = time.monotonic()
        await _psql_copy(bench, database)
        return {"seconds": time.monotonic() - begun}

    for warm_up in (ours, theirs):
        await warm_up(0)
    found = await contest(TRIES * bench.plan.slices, {"ours": ours, "theirs": theirs})
    seconds = {name: figures["seconds"] for name, figures in found.items()}
    return Row(
        what=f"a report of {rows:,} rows, asked for until ready",
        ours=f"{seconds['ours']:.1f} s",
        compared=f"psql \\copy into a file: {seconds['theirs']:.1f} s",
        measured=seconds["ours"] / seconds["theirs"],
        at_most=1.3,
        details=seconds,
    )


async def _psql_copy(bench: Bench, database: str) -> None:
    statement, arguments = csv_statement(MONTH)
    for position, argument in enumerate(arguments, start=1):
        statement = statement.replace(f"${position}", f"'{argument}'")
    url = make_url(with_database(bench.servers.service_url, database))
    target = bench.folder / "psql-copy.csv"
    program = find_postgres_bin(server_account()) / "psql"
    process = await asyncio.create_subprocess_exec(
        str(program),
        f"--host={url.host}",
        f"--port={url.port}",
        f"--username={url.username}",
        f"--dbname={url.database}",
        "--quiet",
        "--command",
        f"\\copy ({' '.join(statement.split())}) TO '{target}' WITH (FORMAT csv, HEADER)",
        env=child_environment({"PGPASSWORD": str(url.password), "PGOPTIONS": "-c jit=off"}),
    )
    try:
        if await process.wait() != 0 or target.stat().st_size == 0:
            raise WrongAnswer("psql \\copy failed")
    finally:
        target.unlink(missing_ok=True)


async def _reads_meanwhile(bench: Bench, api: Server) -> Row:
    plan = bench.plan
    load = loaded(
        api,
        Load(
            port=api.port,
            ask="OneUser",
            sizes=plan.main,
            rate=READS_A_SECOND,
            seconds=2 * plan.slice_seconds,
            warm_up_seconds=plan.warm_up_seconds,
            check_every=plan.check_every,
            max_requests=plan.slice_requests,
        ),
    )

    async def make_reports(number: int) -> None:
        users = range(1, AT_ONCE + 1)
        await asyncio.gather(
            *(_report(api, ReportScope(MONTH.year, MONTH.month, user_id)) for user_id in users)
        )

    found = await contest(
        plan.slices, {"idle": load, "meanwhile": while_working(load, make_reports)}
    )
    idle, meanwhile = found["idle"], found["meanwhile"]
    return Row(
        what=f"p99 of a read at {READS_A_SECOND} req/s while {AT_ONCE} reports are made",
        ours=f"{meanwhile['p99_ms']:.1f} ms",
        compared=f"idle: {idle['p99_ms']:.1f} ms",
        measured=meanwhile["p99_ms"] - idle["p99_ms"],
        unit="ms more",
        at_most=20,
        details=found,
    )


async def _memory(
    bench: Bench, settings: Settings, sql: Connection, api: Server
) -> AsyncIterator[Row]:
    """The peaks of workers, each of which made one report."""
    small, large = SMALL_MONTH, MONTH
    rows = bench.plan.report_rows
    if bench.plan.large:
        small, large, rows = MONTH, LARGE_MONTH, 10 * rows
        await _fill(sql, LARGE_MONTH, rows)
    peaks: list[float] = []
    for month in (small, large):
        async with servers.worker(bench.servers, settings) as worker:
            await _report(api, month)
            peak = servers.peak_memory_mb(worker)
        if peak is not None:
            peaks.append(peak)
    what = f"the worker's peak memory, a report of {rows:,} rows"
    if not peaks:
        yield Row(what=what, ours="", at_most=MEMORY_MB, skipped="the system does not tell")
        return
    yield Row(
        what=what,
        ours=f"{peaks[1]:.0f} MB",
        compared=f"of {rows // 10:,} rows: {peaks[0]:.0f} MB",
        measured=peaks[1],
        unit="MB",
        at_most=MEMORY_MB,
        details={"small_mb": peaks[0], "large_mb": peaks[1]},
    )
