"""Changes the percentage of a rollout while servers are killed, flushed and restarted.

`tests/e2e/test_rollouts.py` injects faults at chosen points; this module injects them while a pass
over a million users is running.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeAlias

from redis.asyncio import Redis

from bench import rollouts, servers
from bench.comparison import WrongResponse
from bench.databases import Connection, cloned_database, ensure_database, superuser_connection
from bench.plan import Benchmark
from bench.queries import ROLLOUT
from bench.table import Row
from segmentql.local import ChildProcess

SLUG: Final = f"{ROLLOUT}chaos"
SAMPLING: Final = -1.0
"""The progress of a pass before it has processed the first user."""

TIMEOUT_SECONDS: Final = 60

Fault: TypeAlias = Callable[[], Awaitable[None]]

_MISSING: Final = """
SELECT count(*) FROM {subset} AS subset
WHERE NOT EXISTS (SELECT FROM {superset} AS superset
    WHERE (superset.user_id, superset.id) = (subset.user_id, subset.id))
"""
_MEMBERSHIPS: Final = "(SELECT user_id, id FROM memberships WHERE segment_id = {segment_id})"


class Chaos:
    """The fault injection, with the number of injected faults by kind."""

    def __init__(self, bench: Benchmark, worker: ChildProcess) -> None:
        self._servers = bench.servers
        self._worker = worker
        self.faults: Counter[str] = Counter()

    async def kill_worker(self) -> None:
        await self._worker.kill()
        self.faults["worker killed"] += 1
        await self._worker.start()

    async def kill_worker_and_flush_redis(self) -> None:
        await self._worker.kill()
        self.faults["worker killed"] += 1
        async with Redis.from_url(self._servers.redis_url) as redis:
            await redis.flushall()
        self.faults["Redis flushed"] += 1
        await self._worker.start()

    async def restart_postgresql(self) -> None:
        await self._servers.postgres.stop()
        self.faults["PostgreSQL restarted"] += 1
        await self._servers.postgres.start()


async def measure(bench: Benchmark) -> AsyncIterator[Row]:
    sizes = bench.plan.rollout
    name = await ensure_database(bench.servers, sizes, bench.print_line)
    bench.print_line(f"a rollout among {sizes.users:,} users, with faults")
    started = time.monotonic()
    async with cloned_database(bench.servers, name) as clone:
        settings = bench.servers.settings(clone)
        async with (
            servers.run_api(bench.servers, settings, "bench-api") as api,
            servers.run_worker(bench.servers, settings) as worker,
        ):
            chaos = Chaos(bench, worker)
            passes: tuple[tuple[int, dict[float, Fault]], ...] = (
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
            for percent, faults_by_progress in passes:
                await rollouts.set_rollout(api, SLUG, create=not counts, percent=percent)
                for progress, inject_fault in faults_by_progress.items():
                    async with superuser_connection(bench.servers, clone) as sql:
                        is_during_pass = await _wait_for_progress(sql, progress)
                    chaos.faults["during a pass"] += is_during_pass
                    await inject_fault()
                async with superuser_connection(bench.servers, clone) as sql:
                    await rollouts.wait_until_finished(sql, SLUG, worker)
                    counts.append(await rollouts.check_members(sql, SLUG, percent))
                    await _check_memberships(sql, percent)
    fault_counts = [
        f"{fault} {count} x" for fault, count in chaos.faults.items() if fault != "during a pass"
    ]
    yield Row(
        name=f"10 %, then 25 %, then 5 % of {sizes.users:,} users, with faults",
        ours=f"{', '.join(f'{count:,}' for count in counts)}: exact",
        compared=f"{', '.join(fault_counts)}; {chaos.faults['during a pass']} during a pass",
        details={
            "counts": counts,
            "faults": dict(chaos.faults),
            "seconds": time.monotonic() - started,
        },
    )


async def _wait_for_progress(sql: Connection, progress: float) -> bool:
    """Wait until the running pass reaches a progress. Return false if it finished before.

    Args:
        sql: A connection to the database.
        progress: The fraction of the users that the pass has processed, or `SAMPLING`.

    Raises:
        WrongResponse: The pass does not reach the progress within `TIMEOUT_SECONDS`.
    """
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        row = await sql.fetchrow(
            """
            SELECT phase::text, users_seen::float8 / greatest(users_total, 1) AS progress
            FROM rollouts WHERE segment_id = $1
            """,
            await rollouts.segment_id_of(sql, SLUG),
        )
        if row is None or row["phase"] == "DONE":
            return False
        if progress == SAMPLING and row["phase"] == "SAMPLING":
            return True
        if progress != SAMPLING and row["phase"] == "WORKING" and row["progress"] >= progress:
            return True
        await asyncio.sleep(rollouts.POLL_SECONDS / 2)
    raise WrongResponse(f"the rollout did not reach {progress:.0%} within {TIMEOUT_SECONDS} s")


async def _check_memberships(sql: Connection, percent: int) -> None:
    """Check that a higher percentage kept all memberships, and that a lower one created none.

    Raises:
        WrongResponse: A membership of the first pass is missing, or a new one exists.
    """
    memberships = _MEMBERSHIPS.format(segment_id=await rollouts.segment_id_of(sql, SLUG))
    if percent == 10:  # noqa: PLR2004 - the first pass
        await sql.execute(f"CREATE TABLE bench_first AS SELECT * FROM {memberships} AS now")
        return
    first, current = "bench_first", memberships
    subset, superset = (first, current) if percent > 10 else (current, first)  # noqa: PLR2004
    if missing := await sql.fetchval(_MISSING.format(subset=subset, superset=superset)):
        raise WrongResponse(f"at {percent} %: {missing} memberships differ from those at 10 %")
