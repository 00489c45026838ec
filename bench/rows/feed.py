"""Measures the change feed of one API process: the query `changes`, and subscribers."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from typing import Final

from bench import servers
from bench.comparison import WrongResponse, compare, load_measurement
from bench.databases import Connection, cloned_database, superuser_connection
from bench.feed import BATCH_CHANGES, Consumer
from bench.http import graphql_client
from bench.load import Load
from bench.plan import Benchmark
from bench.queries import ROLLOUT
from bench.servers import Server
from bench.subscribers import Subscribers, subscribed
from bench.table import Row

MIN_PER_SECOND: Final = 10_000
MIN_CATCH_UP_PER_SECOND: Final = 20_000
SUBSCRIBERS: Final = 100
WRITES_PER_SECOND: Final = 200
MAX_DELAY_MS: Final = 150
READS_PER_SECOND: Final = 300
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
        bench.print_line(f"{SUBSCRIBERS} subscribers, and reads at {READS_PER_SECOND} req/s")
        async for row in _subscribers(bench, api, sql):
            yield row


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
        segment_id = await _create_segment(sql, segment_slug)
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


async def _subscribers(bench: Benchmark, api: Server, sql: Connection) -> AsyncIterator[Row]:
    """Measure the delay from a commit to subscribers, and reads beside them."""
    plan = bench.plan
    load = load_measurement(
        api,
        Load(
            port=api.port,
            request="OneUserInRollouts",
            sizes=plan.main,
            rate=READS_PER_SECOND,
            seconds=2 * plan.slice_seconds,
            warm_up_seconds=plan.warm_up_seconds,
            check_every=plan.check_every,
            max_requests=plan.max_slice_requests,
        ),
    )
    delays: list[Mapping[str, float]] = []

    async def beside_subscribers(number: int) -> Mapping[str, float]:
        segment_slug = f"{ROLLOUT}subscribers-{number}"
        segment_id = await _create_segment(sql, segment_slug)
        async with subscribed(api.port, segment_slug, SUBSCRIBERS) as subscribers:
            writer = asyncio.create_task(_record_at_a_rate(bench, sql, segment_id, subscribers))
            try:
                reads = await load(number)
            finally:
                writer.cancel()
            await asyncio.sleep(MAX_DELAY_MS / 1000)
        delays.append(subscribers.percentiles_ms())
        return reads

    results = await compare(plan.slices, {"idle": load, "loaded": beside_subscribers})
    p99_ms = statistics.median(delay["p99_ms"] for delay in delays)
    p50_ms = statistics.median(delay["p50_ms"] for delay in delays)
    yield Row(
        name=f"from a commit to {SUBSCRIBERS} subscribers, {WRITES_PER_SECOND} changes/s",
        ours=f"p50 {p50_ms:.0f} ms, p99 {p99_ms:.0f} ms",
        value=p99_ms,
        unit="ms",
        max_value=MAX_DELAY_MS,
        details={"p50_ms": p50_ms, "p99_ms": p99_ms},
    )
    idle, loaded = results["idle"], results["loaded"]
    yield Row(
        name=f"p99 of a read at {READS_PER_SECOND} req/s beside {SUBSCRIBERS} subscribers",
        ours=f"{loaded['p99_ms']:.1f} ms",
        compared=f"idle: {idle['p99_ms']:.1f} ms",
        value=loaded["p99_ms"] - idle["p99_ms"],
        unit="ms more",
        max_value=20,
        details=results,
    )


async def _record_at_a_rate(
    bench: Benchmark, sql: Connection, segment_id: int, subscribers: Subscribers
) -> None:
    """Add one user in each transaction, at `WRITES_PER_SECOND`, and note when it is committed."""
    started = time.monotonic()
    for user_id in range(1, bench.plan.main.users + 1):
        due_at = started + user_id / WRITES_PER_SECOND
        await asyncio.sleep(max(0, due_at - time.monotonic()))
        await sql.execute(JOIN, segment_id, user_id, user_id)
        subscribers.committed_at[user_id] = time.monotonic()


async def _create_segment(sql: Connection, segment_slug: str) -> int:
    segment_id: int = await sql.fetchval(
        "INSERT INTO segments (slug, created_at, updated_at) VALUES ($1, now(), now())"
        " RETURNING id",
        segment_slug,
    )
    return segment_id


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
