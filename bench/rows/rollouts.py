"""Compares rollouts with one SQL statement, and measures reads, memory and stage starts."""

import asyncio
import statistics
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import asyncpg
from redis.asyncio import Redis

from bench import rollouts, servers
from bench.comparison import Measurement, WrongResponse, compare, load_measurement
from bench.databases import Connection, cloned_database, ensure_database, superuser_connection
from bench.load import Load
from bench.plan import Benchmark
from bench.queries import ROLLOUT
from bench.servers import Server
from bench.table import Row
from segmentql.local import ChildProcess, with_database
from segmentql.rollouts.jobs import START_ROLLOUT_STAGE

PERCENT: Final = 10
READS_PER_SECOND: Final = 300

ONE_STATEMENT: Final = """
INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
SELECT users.id, $1, moment.at, moment.at, 'ROLLOUT'
FROM users, (SELECT clock_timestamp() AS at OFFSET 0) AS moment
ORDER BY rollout_hash_v1($1, users.id), users.id
LIMIT (SELECT round(count(*) * $2::numeric / 100) FROM users)
"""

STAGES: Final = 8
STAGE_SECONDS: Final = 4
"""The time from the mutation to the start of the stage."""
TIMEOUT_SECONDS: Final = 30

_START_DELAYS: Final = """
SELECT extract(epoch FROM r.started_at - s.starts_at)::float8 AS seconds
FROM rollouts r JOIN rollout_stages s USING (segment_id) WHERE r.started_at IS NOT NULL
"""


async def measure(bench: Benchmark) -> AsyncIterator[Row]:
    sizes = bench.plan.rollout
    name = await ensure_database(bench.servers, sizes, bench.print_line)
    bench.print_line(f"rollouts to {PERCENT} % of {sizes.users:,} users")
    async with (
        cloned_database(bench.servers, name) as clone,
        _running_service(bench, clone) as (api, worker, sql),
    ):
        yield await _compare_with_one_statement(bench, clone, api, worker, sql)
        bench.print_line(f"reads at {READS_PER_SECOND} req/s, idle and while a rollout runs")
        yield await _reads_during_rollout(bench, api, worker, sql)
    yield await _memory(bench, name)
    bench.print_line("stage starts")
    async for row in _stage_delays(bench):
        yield row


@asynccontextmanager
async def _running_service(
    bench: Benchmark, database: str
) -> AsyncIterator[tuple[Server, ChildProcess, Connection]]:
    settings = bench.servers.settings(database)
    async with (
        servers.run_api(bench.servers, settings, "bench-api") as api,
        servers.run_worker(bench.servers, settings) as worker,
        superuser_connection(bench.servers, database) as sql,
    ):
        yield api, worker, sql


async def _compare_with_one_statement(
    bench: Benchmark, database: str, api: Server, worker: ChildProcess, sql: Connection
) -> Row:
    """Compare a rollout with one statement that adds the same users to another segment."""

    async def ours(number: int) -> Mapping[str, float]:
        slug = f"{ROLLOUT}ours-{number}"
        await _vacuum(sql)
        started = await rollouts.database_now(sql)
        await rollouts.set_rollout(api, slug, percent=PERCENT)
        finished = await rollouts.wait_until_finished(sql, slug, worker)
        await rollouts.check_members(sql, slug, PERCENT)
        return {"seconds": (finished - started).total_seconds()}

    async def theirs(number: int) -> Mapping[str, float]:
        slug = f"{ROLLOUT}theirs-{number}"
        segment_id: int = await sql.fetchval(
            "INSERT INTO segments (slug, created_at, updated_at) VALUES ($1, now(), now())"
            " RETURNING id",
            slug,
        )
        await _vacuum(sql)
        service = await asyncpg.connect(with_database(bench.servers.service_url, database))
        started = await rollouts.database_now(sql)
        await service.execute(ONE_STATEMENT, segment_id, PERCENT)
        finished = await rollouts.database_now(sql)
        await service.close()
        await rollouts.check_members(sql, slug, PERCENT)
        return {"seconds": (finished - started).total_seconds()}

    results = await compare(bench.plan.slices, {"ours": ours, "theirs": theirs})
    seconds = {name: values["seconds"] for name, values in results.items()}
    return Row(
        name=f"a rollout to {PERCENT} % of {bench.plan.rollout.users:,} users",
        ours=f"{seconds['ours']:.1f} s",
        compared=f"one statement: {seconds['theirs']:.1f} s",
        value=seconds["ours"] / seconds["theirs"],
        max_value=1.5,
        details=seconds,
    )


async def _vacuum(sql: Connection) -> None:
    await sql.execute("VACUUM (ANALYZE)")
    await sql.execute("CHECKPOINT")


async def _reads_during_rollout(
    bench: Benchmark, api: Server, worker: ChildProcess, sql: Connection
) -> Row:
    plan = bench.plan
    load = load_measurement(
        api,
        Load(
            port=api.port,
            request="OneUserInRollouts",
            sizes=plan.rollout,
            rate=READS_PER_SECOND,
            seconds=2 * plan.slice_seconds,
            warm_up_seconds=plan.warm_up_seconds,
            check_every=plan.check_every,
            max_requests=plan.max_slice_requests,
        ),
    )
    results = await compare(
        plan.slices, {"idle": load, "loaded": _during_rollouts(load, api, worker, sql)}
    )
    idle, loaded = results["idle"], results["loaded"]
    return Row(
        name=f"p99 of a read at {READS_PER_SECOND} req/s during a rollout",
        ours=f"{loaded['p99_ms']:.1f} ms",
        compared=f"idle: {idle['p99_ms']:.1f} ms",
        value=loaded["p99_ms"] - idle["p99_ms"],
        unit="ms more",
        max_value=20,
        details=results,
    )


def _during_rollouts(
    load: Measurement, api: Server, worker: ChildProcess, sql: Connection
) -> Measurement:
    """Return a measurement of a load while rollouts run, one after another."""

    async def measure(number: int) -> Mapping[str, float]:
        has_started, has_ended = asyncio.Event(), asyncio.Event()

        async def run_rollouts() -> None:
            rounds = 0
            while not has_ended.is_set():
                rounds += 1
                slug = f"{ROLLOUT}during-reads-{number}-{rounds}"
                await rollouts.set_rollout(api, slug, percent=PERCENT)
                has_started.set()
                await rollouts.wait_until_finished(sql, slug, worker)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run_rollouts())
            await has_started.wait()
            values = await load(number)
            has_ended.set()
        return values

    return measure


async def _memory(bench: Benchmark, large: str) -> Row:
    """Compare the peak memory of two workers, each of which runs one rollout."""
    plan = bench.plan
    small = await ensure_database(bench.servers, plan.rollout_small, bench.print_line)
    peaks: list[float] = []
    for name in (small, large):
        async with (
            cloned_database(bench.servers, name) as clone,
            _running_service(bench, clone) as (api, worker, sql),
        ):
            await rollouts.set_rollout(api, f"{ROLLOUT}memory", percent=PERCENT)
            await rollouts.wait_until_finished(sql, f"{ROLLOUT}memory", worker)
            peak = servers.peak_memory_mb(worker)
        if peak is not None:
            peaks.append(peak)
    name = f"peak memory of the worker, {plan.rollout.users:,} users"
    if not peaks:
        return Row(name=name, ours="", max_value=1.1, skip_reason="no /proc")
    return Row(
        name=name,
        ours=f"{peaks[1]:.0f} MB",
        compared=f"{plan.rollout_small.users:,} users: {peaks[0]:.0f} MB",
        value=peaks[1] / peaks[0],
        max_value=1.1,
        details={"small_mb": peaks[0], "large_mb": peaks[1]},
    )


async def _stage_delays(bench: Benchmark) -> AsyncIterator[Row]:
    """Measure the delay between the start time of a stage and the start of its work."""
    for trigger, delays in (
        ("its delayed message, scheduler off", await _delays_by_message(bench)),
        ("the scheduler, Redis flushed", await _delays_by_scheduler(bench)),
    ):
        yield Row(
            name=f"from a stage's time to its start by {trigger}",
            ours=f"p50 {statistics.median(delays):.2f} s, max {max(delays):.2f} s",
            details={"seconds": delays},
        )


async def _delays_by_message(bench: Benchmark) -> list[float]:
    async with (
        cloned_database(bench.servers, bench.small) as clone,
        superuser_connection(bench.servers, clone) as sql,
    ):
        settings = bench.servers.settings(clone)
        async with (
            servers.run_api(bench.servers, settings, "bench-api") as api,
            servers.run_worker(bench.servers, settings, scheduler="off") as worker,
        ):
            await _schedule_stages(api)
            return await _start_delays(sql, worker)


async def _delays_by_scheduler(bench: Benchmark) -> list[float]:
    async with AsyncExitStack() as stack:
        clone = await stack.enter_async_context(cloned_database(bench.servers, bench.small))
        sql = await stack.enter_async_context(superuser_connection(bench.servers, clone))
        redis = await stack.enter_async_context(Redis.from_url(bench.servers.redis_url))
        settings = bench.servers.settings(clone)
        async with servers.run_api(bench.servers, settings, "bench-api") as api:
            await _schedule_stages(api)
            # No worker runs yet, because it would fetch the messages before they are flushed.
            while await redis.llen(f"dramatiq:{START_ROLLOUT_STAGE.queue}.DQ") < STAGES:
                await asyncio.sleep(rollouts.POLL_SECONDS)
            await redis.flushall()
        async with servers.run_worker(bench.servers, settings) as worker:
            return await _start_delays(sql, worker)


async def _schedule_stages(api: Server) -> None:
    for number in range(STAGES):
        stages: list[dict[str, Any]] = [{"percent": PERCENT, "afterSeconds": STAGE_SECONDS}]
        await rollouts.set_rollout(api, f"{ROLLOUT}{number}", stages=stages)


async def _start_delays(sql: Connection, worker: ChildProcess) -> list[float]:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while len(results := await sql.fetch(_START_DELAYS)) < STAGES:
                await asyncio.sleep(rollouts.POLL_SECONDS)
    except TimeoutError as error:
        problem = f"did not start all stages within {TIMEOUT_SECONDS} s"
        raise WrongResponse(worker.error_message(problem)) from error
    return [row["seconds"] for row in results]
