"""Measures the latency of reads while ten hostile clients send requests."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator

from bench import servers
from bench.comparison import WrongResponse, compare, load_measurement, with_background_work
from bench.hostile import CLIENTS
from bench.load import Load
from bench.plan import Benchmark
from bench.table import Row

READS_PER_SECOND = 300


async def measure(bench: Benchmark) -> AsyncIterator[Row]:
    plan = bench.plan
    bench.print_line(f"reads at {READS_PER_SECOND} req/s beside {CLIENTS} hostile clients")
    statuses: dict[str, int] = {}
    # As long as the load, because the start of another process would affect the latency.
    seconds = 2 * plan.slice_seconds + plan.warm_up_seconds + 1 if plan.checks_targets else 1
    async with servers.run_api(
        bench.servers, bench.servers.settings(bench.main), "bench-api"
    ) as api:
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

        async def attack(_number: int) -> None:
            for status, count in (
                await _run_hostile_clients(api.port, seconds, plan.main.users)
            ).items():
                statuses[status] = statuses.get(status, 0) + count

        results = await compare(
            plan.slices, {"idle": load, "loaded": with_background_work(load, attack)}
        )
    if any(status.startswith("5") for status in statuses):
        raise WrongResponse(f"hostile clients got {statuses}")
    idle, loaded = results["idle"], results["loaded"]
    yield Row(
        name=f"p99 of a read at {READS_PER_SECOND} req/s beside {CLIENTS} hostile clients",
        ours=f"{loaded['p99_ms']:.1f} ms",
        compared=f"idle: {idle['p99_ms']:.1f} ms",
        value=loaded["p99_ms"] - idle["p99_ms"],
        unit="ms more",
        max_value=100,
        details={**results, "statuses": statuses},
    )


async def _run_hostile_clients(port: int, seconds: float, users: int) -> dict[str, int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.hostile",
        str(port),
        str(seconds),
        str(users),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    if process.returncode != 0:
        raise WrongResponse("the hostile clients failed")
    statuses: dict[str, int] = json.loads(out)
    return statuses
