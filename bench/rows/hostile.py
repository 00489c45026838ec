"""Hostile callers: what another caller's reads feel of ten of them."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator

from bench import servers
from bench.comparison import WrongAnswer, contest, loaded, while_working
from bench.hostile import CALLERS
from bench.load import Load
from bench.plan import Bench
from bench.table import Row

READS_A_SECOND = 300


async def measure(bench: Bench) -> AsyncIterator[Row]:
    plan = bench.plan
    bench.say(f"reads at {READS_A_SECOND} req/s beside {CALLERS} hostile callers")
    answers: dict[str, int] = {}
    # As long as the load, for the start of a process would be felt as well.
    seconds = 2 * plan.slice_seconds + plan.warm_up_seconds + 1 if plan.judges else 1
    async with servers.api(bench.servers, bench.servers.settings(bench.main), "bench-api") as api:
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

        async def be_hostile(_number: int) -> None:
            for status, count in (await _hostile(api.port, seconds, plan.main.users)).items():
                answers[status] = answers.get(status, 0) + count

        found = await contest(
            plan.slices, {"idle": load, "meanwhile": while_working(load, be_hostile)}
        )
    if any(status.startswith("5") for status in answers):
        raise WrongAnswer(f"hostile callers got {answers}")
    idle, meanwhile = found["idle"], found["meanwhile"]
    yield Row(
        what=f"p99 of a read at {READS_A_SECOND} req/s beside {CALLERS} hostile callers",
        ours=f"{meanwhile['p99_ms']:.1f} ms",
        compared=f"idle: {idle['p99_ms']:.1f} ms",
        measured=meanwhile["p99_ms"] - idle["p99_ms"],
        unit="ms more",
        at_most=100,
        details={**found, "answers": answers},
    )


async def _hostile(port: int, seconds: float, users: int) -> dict[str, int]:
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
        raise WrongAnswer("the hostile callers failed")
    answers: dict[str, int] = json.loads(out)
    return answers
