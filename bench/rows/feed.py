"""Measures the change feed through the pull query, to one API process."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Final

from bench import servers
from bench.comparison import WrongResponse, compare
from bench.databases import Connection, cloned_database, superuser_connection
from bench.feed import BATCH_CHANGES, Consumer
from bench.http import graphql_client
from bench.plan import Benchmark
from bench.queries import ROLLOUT
from bench.servers import Server
from bench.table import Row

MIN_PER_SECOND: Final = 10_000
MIN_CATCH_UP_PER_SECOND: Final = 20_000
TIMEOUT_SECONDS: Final = 600

WRITTEN_USERS: Final = BATCH_CHANGES
"""The number of joins per transaction."""

JOIN: Final = """
INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
SELECT id, $1, moment.at, moment.at, 'MANUAL'
FROM generate_series($2::bigint, $3::bigint) AS id,
    (SELECT clock_timestamp() AS at OFFSET 0) AS moment
"""


async def measure(bench: Benchmark) -> AsyncIterator[Row]:
    """Read all generated changes, and then changes while they are recorded."""
    sizes = bench.plan.main
    async with (
        cloned_database(bench.servers, bench.main) as clone,
        superuser_connection(bench.servers, clone) as sql,
        servers.run_api(bench.servers, bench.servers.settings(clone), "bench-api") as api,
    ):
        bench.print_line(f"a consumer {sizes.memberships:,} changes behind")
        yield await _catch_up(bench, api)
        bench.print_line("a consumer of changes that are being recorded")
        yield await _follow(bench, api, sql)


async def _catch_up(bench: Benchmark, api: Server) -> Row:
    """Read all changes of the data set."""
    sizes = bench.plan.main
    cpu_before = api.cpu_seconds()
    async with graphql_client(api.port) as client, asyncio.timeout(TIMEOUT_SECONDS):
        consumer = Consumer(client, sizes)
        started = time.monotonic()
        while not await consumer.read():
            pass
        seconds = time.monotonic() - started
    if consumer.changes != sizes.memberships:
        raise WrongResponse(f"the feed returned {consumer.changes} of {sizes.memberships} changes")
    cpu = _cpu_us(api, cpu_before, sizes.memberships)
    return _row(
        f"changes per second through `changes`, {sizes.memberships:,} behind",
        {"per_second": sizes.memberships / seconds, **cpu},
        MIN_CATCH_UP_PER_SECOND,
    )


async def _follow(bench: Benchmark, api: Server, sql: Connection) -> Row:
    """Read changes while one connection records them without a pause."""

    async def measure(number: int) -> Mapping[str, float]:
        segment_slug = f"{ROLLOUT}feed-{number}"
        segment_id: int = await sql.fetchval(
            "INSERT INTO segments (slug, created_at, updated_at) VALUES ($1, now(), now())"
            " RETURNING id",
            segment_slug,
        )
        async with graphql_client(api.port) as client, asyncio.timeout(TIMEOUT_SECONDS):
            consumer = Consumer(client, bench.plan.main)
            await consumer.start_at_the_newest_change(new_segment_slug=segment_slug)
            cpu_before = api.cpu_seconds()
            started = time.monotonic()
            writer = asyncio.create_task(_record_joins(bench, sql, segment_id))
            try:
                while not writer.done() or consumer.changes < writer.result():
                    await consumer.read(wait_seconds=1)
            finally:
                writer.cancel()
            seconds = time.monotonic() - started
        cpu = _cpu_us(api, cpu_before, consumer.changes)
        return {"per_second": consumer.changes / seconds, **cpu}

    results = await compare(bench.plan.slices, {"ours": measure})
    name = "changes per second through `changes`, while they are recorded"
    return _row(name, results["ours"], MIN_PER_SECOND)


async def _record_joins(bench: Benchmark, sql: Connection, segment_id: int) -> int:
    """Add users to a segment until the slice ends or all users are members; return their number."""
    users = bench.plan.main.users
    ends_at = time.monotonic() + bench.plan.slice_seconds
    joined = 0
    while joined < users and time.monotonic() < ends_at:
        last = min(joined + WRITTEN_USERS, users)
        await sql.execute(JOIN, segment_id, joined + 1, last)
        joined = last
    return joined


def _cpu_us(api: Server, before: float | None, changes: int) -> dict[str, float]:
    """Return the CPU time of the API per change, if it is known."""
    after = api.cpu_seconds()
    if before is None or after is None:
        return {}
    return {"server_cpu_us_per_change": 1e6 * (after - before) / max(changes, 1)}


def _row(name: str, result: Mapping[str, float], min_per_second: float) -> Row:
    cpu = result.get("server_cpu_us_per_change")
    return Row(
        name=name,
        ours=f"{result['per_second']:,.0f} per second"
        + ("" if cpu is None else f", {cpu:,.0f} us CPU"),
        value=result["per_second"],
        unit="per second",
        min_value=min_per_second,
        details=result,
    )
