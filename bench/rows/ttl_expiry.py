"""How long after the end of a short TTL its leave is recorded, while little else goes on."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from bench import servers
from bench.comparison import WrongAnswer, checked
from bench.databases import Connection, cloned, connected
from bench.load import Load
from bench.plan import Bench
from bench.table import Row
from segmentql.local import ChildProcess

CHANGES_A_SECOND: Final = 40
RECORDED_SECONDS: Final = 60
"""How long the last of them may take."""

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


async def measure(bench: Bench) -> AsyncIterator[Row]:
    bench.say("ends of short TTLs")
    plan = bench.plan
    async with cloned(bench.servers, bench.main) as clone:
        settings = bench.servers.settings(clone)
        async with (
            servers.api(bench.servers, settings, "bench-api") as api,
            servers.worker(bench.servers, settings) as worker,
            connected(bench.servers, clone) as sql,
        ):
            result = await checked(
                Load(
                    port=api.port,
                    ask="ShortTtl",
                    sizes=plan.main,
                    rate=CHANGES_A_SECOND,
                    seconds=4 * plan.slice_seconds,
                    check_every=plan.check_every,
                    max_requests=min(plan.slice_requests, plan.main.users),
                )
            )
            await _all_recorded(sql, result.requests, worker)
            found = dict((await sql.fetch(_DELAYS))[0])
    yield Row(
        what="a TTL's end to its leave on record",
        ours=f"p50 {found['p50_seconds']:.2f} s, p99 {found['p99_seconds']:.2f} s,"
        f" longest {found['max_seconds']:.2f} s",
        details=found,
    )


async def _all_recorded(sql: Connection, leaves: int, worker: ChildProcess) -> None:
    give_up_at = time.monotonic() + RECORDED_SECONDS
    while (recorded := (await sql.fetch(_DELAYS))[0]["leaves"]) < leaves:
        if time.monotonic() > give_up_at:
            what = f"recorded {recorded} of {leaves} leaves in {RECORDED_SECONDS} s"
            raise WrongAnswer(worker.error_message(what))
        await asyncio.sleep(0.1)
