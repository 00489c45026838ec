"""Compares the CPU time of a read with and without an API key."""

import dataclasses
from collections.abc import AsyncIterator
from typing import Final

from bench.api_keys import reader_key
from bench.in_process import Comparison, run_comparison
from bench.plan import Benchmark
from bench.servers import environment_for
from bench.table import Row

PAIRS: Final = 300


async def measure(bench: Benchmark) -> AsyncIterator[Row]:
    """Compare CPU times, which are less noisy than request rates."""
    bench.print_line("a user's segments, with a key and without")
    settings = bench.servers.settings(bench.main)
    async with reader_key(settings) as token:
        pairs = PAIRS if bench.plan.checks_targets else 1
        comparison = Comparison(sizes=bench.plan.main, token=token, pairs=pairs)
        cpu_times = await run_comparison(comparison, environment_for(settings))
    yield Row(
        name="CPU of a user's segments with an API key, without HTTP",
        ours=f"{cpu_times.with_key_us:.0f} us",
        compared=f"without keys: {cpu_times.without_key_us:.0f} us",
        value=cpu_times.ratio,
        max_value=1.1,
        details=dataclasses.asdict(cpu_times),
    )
