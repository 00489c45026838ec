"""Rollouts: beside the one-statement way, what reads feel of them, memory, starts of stages."""

import asyncio
import statistics
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import asyncpg
from redis.asyncio import Redis

from bench import rollouts, servers
from bench.comparison import Measure, WrongAnswer, contest, loaded
from bench.databases import Connection, cloned, connected, filled
from bench.load import Load
from bench.plan import Bench
from bench.queries import ROLLOUT
from bench.servers import Server
from bench.table import Row
from segmentql.local import ChildProcess, with_database
from segmentql.rollouts.jobs import START_ROLLOUT_STAGE

PERCENT: Final = 10
READS_A_SECOND: Final = 300

ONE_STATEMENT: Final = """
INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
SELECT users.id, $1, moment.at, moment.at, 'ROLLOUT'
FROM users, (SELECT clock_timestamp() AS at OFFSET 0) AS moment
ORDER BY rollout_hash_v1($1, users.id), users.id
LIMIT (SELECT round(count(*) * $2::numeric / 100) FROM users)
"""

STAGES: Final = 8
STAGE_SECONDS: Final = 4
"""How far ahead a stage is."""
STARTED_SECONDS: Final = 30

_LATENESS: Final = """
SELECT extract(epoch FROM r.started_at - s.starts_at)::float8 AS seconds
FROM rollouts r JOIN rollout_stages s USING (segment_id) WHERE r.started_at IS NOT NULL
"""


async def measure(bench: Bench) -> AsyncIterator[Row]:
    sizes = bench.plan.rollout
    name = await filled(bench.servers, sizes, bench.say)
    bench.say(f"rollouts to {PERCENT} % of {sizes.users:,} users")
    async with cloned(bench.servers, name) as clone, _running(bench, clone) as (api, worker, sql):
        yield await _beside_one_statement(bench, clone, api, worker, sql)
        bench.say(f"reads at {READS_A_SECOND} req/s, idle and while a rollout runs")
        yield await _reads_meanwhile(bench, api, worker, sql)
    yield await _memory(bench, name)
    bench.say("starts of stages")
    async for row in _starts_of_stages(bench):
        yield row


@asynccontextmanager
async def _running(
    bench: Bench, database: str
) -> AsyncIterator[tuple[Server, ChildProcess, Connection]]:
    settings = bench.servers.settings(database)
    async with (
        servers.api(bench.servers, settings, "bench-api") as api,
        servers.worker(bench.servers, settings) as worker,
        connected(bench.servers, database) as sql,
    ):
        yield api, worker, sql


async def _beside_one_statement(
    bench: Bench, database: str, api: Server, worker: ChildProcess, sql: Connection
) -> Row:
    """Both put the same share of the same users into a segment of their own, in turns."""

    async def ours(number: int) -> Mapping[str, float]:
        slug = f"{ROLLOUT}ours-{number}"
        await _freshen(sql)
        asked = await rollouts.clock(sql)
        await rollouts.set_rollout(api, slug, percent=PERCENT)
        finished = await rollouts.until_done(sql, slug, worker)
        await rollouts.check_exact(sql, slug, PERCENT)
        return {"seconds": (finished - asked).total_seconds()}

    async def theirs(number: int) -> Mapping[str, float]:
        slug = f"{ROLLOUT}theirs-{number}"
        segment_id: int = await sql.fetchval(
            "INSERT INTO segments (slug, created_at, updated_at) VALUES ($1, now(), now())"
            " RETURNING id",
            slug,
        )
        await _freshen(sql)
        service = await asyncpg.connect(with_database(bench.servers.service_url, database))
        asked = await rollouts.clock(sql)
        await service.execute(ONE_STATEMENT, segment_id, PERCENT)
        finished = await rollouts.clock(sql)
        await service.close()
        await rollouts.check_exact(sql, slug, PERCENT)
        return {"seconds": (finished - asked).total_seconds()}

    found = await contest(bench.plan.slices, {"ours": ours, "theirs": theirs})
    seconds = {name: figures["seconds"] for name, figures in found.items()}
    return Row(
        what=f"a rollout to {PERCENT} % of {bench.plan.rollout.users:,} users",
        ours=f"{seconds['ours']:.1f} s",
        compared=f"one statement: {seconds['theirs']:.1f} s",
        measured=seconds["ours"] / seconds["theirs"],
        at_most=1.5,
        details=seconds,
    )


async def _freshen(sql: Connection) -> None:
    await sql.execute("VACUUM (ANALYZE)")
    await sql.execute("CHECKPOINT")


async def _reads_meanwhile(bench: Bench, api: Server, worker: ChildProcess, sql: Connection) -> Row:
    plan = bench.plan
    load = loaded(
        api,
        Load(
            port=api.port,
            ask="OneUserInRollouts",
            sizes=plan.rollout,
            rate=READS_A_SECOND,
            seconds=2 * plan.slice_seconds,
            warm_up_seconds=plan.warm_up_seconds,
            check_every=plan.check_every,
            max_requests=plan.slice_requests,
        ),
    )
    found = await contest(
        plan.slices, {"idle": load, "meanwhile": _meanwhile(load, api, worker, sql)}
    )
    idle, meanwhile = found["idle"], found["meanwhile"]
    return Row(
        what=f"p99 of a read at {READS_A_SECOND} req/s while a rollout runs",
        ours=f"{meanwhile['p99_ms']:.1f} ms",
        compared=f"idle: {idle['p99_ms']:.1f} ms",
        measured=meanwhile["p99_ms"] - idle["p99_ms"],
        unit="ms more",
        at_most=20,
        details=found,
    )


def _meanwhile(load: Measure, api: Server, worker: ChildProcess, sql: Connection) -> Measure:
    """The load while rollouts are carried out, one after the other and never none."""

    async def measure(number: int) -> Mapping[str, float]:
        first, ended = asyncio.Event(), asyncio.Event()

        async def carry_out() -> None:
            rounds = 0
            while not ended.is_set():
                rounds += 1
                slug = f"{ROLLOUT}meanwhile-{number}-{rounds}"
                await rollouts.set_rollout(api, slug, percent=PERCENT)
                first.set()
                await rollouts.until_done(sql, slug, worker)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(carry_out())
            await first.wait()
            figures = await load(number)
            ended.set()
        return figures

    return measure


async def _memory(bench: Bench, large: str) -> Row:
    """The peaks of two workers, each of which carried out one rollout."""
    plan = bench.plan
    small = await filled(bench.servers, plan.rollout_small, bench.say)
    peaks: list[float] = []
    for name in (small, large):
        async with (
            cloned(bench.servers, name) as clone,
            _running(bench, clone) as (api, worker, sql),
        ):
            await rollouts.set_rollout(api, f"{ROLLOUT}memory", percent=PERCENT)
            await rollouts.until_done(sql, f"{ROLLOUT}memory", worker)
            peak = servers.peak_memory_mb(worker)
        if peak is not None:
            peaks.append(peak)
    what = f"the worker's peak memory, {plan.rollout.users:,} users"
    if not peaks:
        return Row(what=what, ours="", at_most=1.1, skipped="the system does not tell (no /proc)")
    return Row(
        what=what,
        ours=f"{peaks[1]:.0f} MB",
        compared=f"at {plan.rollout_small.users:,}: {peaks[0]:.0f} MB",
        measured=peaks[1] / peaks[0],
        at_most=1.1,
        details={"small_mb": peaks[0], "large_mb": peaks[1]},
    )


async def _starts_of_stages(bench: Bench) -> AsyncIterator[Row]:
    """Some rollouts whose first stage is some seconds ahead; when work on it began."""
    for how, lateness in (
        ("its delayed message, scheduler off", await _by_message(bench)),
        ("the scheduler, Redis flushed", await _by_scheduler(bench)),
    ):
        yield Row(
            what=f"a stage's moment to its start by {how}",
            ours=f"p50 {statistics.median(lateness):.2f} s, longest {max(lateness):.2f} s",
            details={"seconds": lateness},
        )


async def _by_message(bench: Bench) -> list[float]:
    async with cloned(bench.servers, bench.small) as clone, connected(bench.servers, clone) as sql:
        settings = bench.servers.settings(clone)
        async with (
            servers.api(bench.servers, settings, "bench-api") as api,
            servers.worker(bench.servers, settings, scheduler="off") as worker,
        ):
            await _plan_stages(api)
            return await _lateness(sql, worker)


async def _by_scheduler(bench: Bench) -> list[float]:
    async with AsyncExitStack() as stack:
        clone = await stack.enter_async_context(cloned(bench.servers, bench.small))
        sql = await stack.enter_async_context(connected(bench.servers, clone))
        redis = await stack.enter_async_context(Redis.from_url(bench.servers.redis_url))
        settings = bench.servers.settings(clone)
        async with servers.api(bench.servers, settings, "bench-api") as api:
            await _plan_stages(api)
            # A worker would fetch the messages at once: without one they are all there to be lost.
            while await redis.llen(f"dramatiq:{START_ROLLOUT_STAGE.queue}.DQ") < STAGES:
                await asyncio.sleep(rollouts.POLL_SECONDS)
            await redis.flushall()
        async with servers.worker(bench.servers, settings) as worker:
            return await _lateness(sql, worker)


async def _plan_stages(api: Server) -> None:
    for number in range(STAGES):
        stages: list[dict[str, Any]] = [{"percent": PERCENT, "afterSeconds": STAGE_SECONDS}]
        await rollouts.set_rollout(api, f"{ROLLOUT}{number}", stages=stages)


async def _lateness(sql: Connection, worker: ChildProcess) -> list[float]:
    try:
        async with asyncio.timeout(STARTED_SECONDS):
            while len(found := await sql.fetch(_LATENESS)) < STAGES:
                await asyncio.sleep(rollouts.POLL_SECONDS)
    except TimeoutError as error:
        what = f"did not start all stages within {STARTED_SECONDS} s"
        raise WrongAnswer(worker.error_message(what)) from error
    return [row["seconds"] for row in found]
