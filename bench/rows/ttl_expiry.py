"""Measures the delay between the end of a short TTL and its recorded leave, at low load."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from bench import servers
from bench.comparison import WrongResponse, run_checked_load
from bench.databases import Connection, cloned_database, superuser_connection
from bench.load import Load
from bench.plan import Benchmark
from bench.table import Row
from segmentql.local import ChildProcess

CHANGES_PER_SECOND: Final = 40
TIMEOUT_SECONDS: Final = 60
"""The maximum delay of the last recorded leave."""

_DELAYS: Final = """
SELECT count(*) AS leaves,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY delay_seconds) AS p50_seconds,
    percentile_cont(0.99) WITHIN GROUP (ORDER BY delay_seconds) AS p99_seconds,
    max(delay_seconds) AS max_seconds
FROM (
    SELECT extract(epoch FROM recorded_at - at)::float8 AS delay_seconds
    FROM history WHERE cause = 'TTL'
) AS leave
"""


async def measure(bench: Benchmark) -> AsyncIterator[Row]:
    bench.print_line("delays of recorded leaves")
    plan = bench.plan
    async with cloned_database(bench.servers, bench.main) as clone:
        settings = bench.servers.settings(clone)
        async with (
            servers.run_api(bench.servers, settings, "bench-api") as api,
            servers.run_worker(bench.servers, settings) as worker,
            superuser_connection(bench.servers, clone) as sql,
        ):
            result = await run_checked_load(
                Load(
                    port=api.port,
                    request="ShortTtl",
                    sizes=plan.main,
                    rate=CHANGES_PER_SECOND,
                    seconds=4 * plan.slice_seconds,
                    check_every=plan.check_every,
                    max_requests=min(plan.max_slice_requests, plan.main.users),
                )
            )
            await _wait_until_recorded(sql, result.requests, worker)
            delays = dict((await sql.fetch(_DELAYS))[0])
    yield Row(
        name="from a TTL's end to its recorded leave",
        ours=f"p50 {delays['p50_seconds']:.2f} s, p99 {delays['p99_seconds']:.2f} s,"
        f" max {delays['max_seconds']:.2f} s",
        details=delays,
    )


async def _wait_until_recorded(sql: Connection, leaves: int, worker: ChildProcess) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (recorded := (await sql.fetch(_DELAYS))[0]["leaves"]) < leaves:
        if time.monotonic() > deadline:
            problem = f"recorded {recorded} of {leaves} leaves within {TIMEOUT_SECONDS} s"
            raise WrongResponse(worker.error_message(problem))
        await asyncio.sleep(0.1)
