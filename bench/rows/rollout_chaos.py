"""A rollout raised and lowered while workers are killed, Redis flushed, PostgreSQL restarted.

`tests/e2e/test_rollouts.py` strikes at chosen instants; this strikes where a pass of a million
users happens to be.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeAlias

from redis.asyncio import Redis

from bench import rollouts, servers
from bench.comparison import WrongAnswer
from bench.databases import Connection, cloned, connected, filled
from bench.plan import Bench
from bench.queries import ROLLOUT
from bench.table import Row
from segmentql.local import ChildProcess

SLUG: Final = f"{ROLLOUT}chaos"
SAMPLING: Final = -1.0
"""Before the pass has seen anybody."""

REACHED_SECONDS: Final = 60

Strike: TypeAlias = Callable[[], Awaitable[None]]

_MISSING: Final = """
SELECT count(*) FROM {few} AS few
WHERE NOT EXISTS (SELECT FROM {many} AS many WHERE (many.user_id, many.id) = (few.user_id, few.id))
"""
_NOW: Final = "(SELECT user_id, id FROM memberships WHERE segment_id = {segment_id})"


class Chaos:
    """What is struck, and how often it was."""

    def __init__(self, bench: Bench, worker: ChildProcess) -> None:
        self._servers = bench.servers
        self._worker = worker
        self.struck: Counter[str] = Counter()

    async def kill_worker(self) -> None:
        await self._worker.kill()
        self.struck["worker killed"] += 1
        await self._worker.start()

    async def kill_worker_and_flush_redis(self) -> None:
        await self._worker.kill()
        self.struck["worker killed"] += 1
        async with Redis.from_url(self._servers.redis_url) as redis:
            await redis.flushall()
        self.struck["Redis flushed"] += 1
        await self._worker.start()

    async def restart_postgresql(self) -> None:
        await self._servers.postgres.stop()
        self.struck["PostgreSQL restarted"] += 1
        await self._servers.postgres.start()


async def measure(bench: Bench) -> AsyncIterator[Row]:
    sizes = bench.plan.rollout
    name = await filled(bench.servers, sizes, bench.say)
    bench.say(f"a rollout among {sizes.users:,} users, with kills along the way")
    began = time.monotonic()
    async with cloned(bench.servers, name) as clone:
        settings = bench.servers.settings(clone)
        async with (
            servers.api(bench.servers, settings, "bench-api") as api,
            servers.worker(bench.servers, settings) as worker,
        ):
            chaos = Chaos(bench, worker)
            passes: tuple[tuple[int, dict[float, Strike]], ...] = (
                (10, {SAMPLING: chaos.kill_worker, 0.3: chaos.kill_worker_and_flush_redis}),
                (
                    25,
                    {
                        0.2: chaos.kill_worker,
                        0.5: chaos.restart_postgresql,
                        0.8: chaos.kill_worker,
                    },
                ),
                (5, {0.4: chaos.kill_worker_and_flush_redis}),
            )
            counts: list[int] = []
            for percent, strikes in passes:
                await rollouts.set_rollout(api, SLUG, create=not counts, percent=percent)
                for progress, strike in strikes.items():
                    async with connected(bench.servers, clone) as sql:
                        in_a_pass = await _has_come_to(sql, progress)
                    chaos.struck["in a pass"] += in_a_pass
                    await strike()
                async with connected(bench.servers, clone) as sql:
                    await rollouts.until_done(sql, SLUG, worker)
                    counts.append(await rollouts.check_exact(sql, SLUG, percent))
                    await _check_kept(sql, percent)
    told = [f"{what} {count} x" for what, count in chaos.struck.items() if what != "in a pass"]
    yield Row(
        what=f"10 %, then 25 %, then 5 % of {sizes.users:,} users, with kills",
        ours=f"{', '.join(f'{count:,}' for count in counts)}: exact",
        compared=f"{', '.join(told)}; {chaos.struck['in a pass']} times in a pass",
        details={
            "counts": counts,
            "struck": dict(chaos.struck),
            "seconds": time.monotonic() - began,
        },
    )


async def _has_come_to(sql: Connection, progress: float) -> bool:
    """Wait until the pass under way has seen that share of its users; false: it is done before."""
    give_up_at = time.monotonic() + REACHED_SECONDS
    while time.monotonic() < give_up_at:
        row = await sql.fetchrow(
            """
            SELECT phase::text, users_seen::float8 / greatest(users_total, 1) AS progress
            FROM rollouts WHERE segment_id = $1
            """,
            await rollouts.number_of(sql, SLUG),
        )
        if row is None or row["phase"] == "DONE":
            return False
        if progress == SAMPLING and row["phase"] == "SAMPLING":
            return True
        if progress != SAMPLING and row["phase"] == "WORKING" and row["progress"] >= progress:
            return True
        await asyncio.sleep(rollouts.POLL_SECONDS / 2)
    raise WrongAnswer(f"the rollout did not come to {progress:.0%} in {REACHED_SECONDS} s")


async def _check_kept(sql: Connection, percent: int) -> None:
    """Raising kept every membership, lowering made none.

    Raises:
        WrongAnswer: it is not so.
    """
    now = _NOW.format(segment_id=await rollouts.number_of(sql, SLUG))
    if percent == 10:  # noqa: PLR2004 - the first pass
        await sql.execute(f"CREATE TABLE bench_first AS SELECT * FROM {now} AS now")
        return
    few, many = ("bench_first", now) if percent > 10 else (now, "bench_first")  # noqa: PLR2004
    if missing := await sql.fetchval(_MISSING.format(few=few, many=many)):
        raise WrongAnswer(f"at {percent} %: {missing} memberships are not what they were at 10 %")
