"""Compares the CPU time of a read with and without an API key."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from bench.in_process import Comparison, run_comparison
from bench.plan import Benchmark
from bench.servers import environment_for
from bench.table import Row
from segmentql.adapters.database import Database
from segmentql.keys import service
from segmentql.principal import NO_ACTOR
from segmentql.settings import Settings
from segmentql.tables import Role

PAIRS: Final = 300


async def measure(bench: Benchmark) -> AsyncIterator[Row]:
    """Compare CPU times, which are less noisy than request rates."""
    bench.print_line("a user's segments, with a key and without")
    settings = bench.servers.settings(bench.main)
    async with _reader_key(settings) as token:
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


@asynccontextmanager
async def _reader_key(settings: Settings) -> AsyncIterator[str]:
    """Create an API key with the role READER, and revoke it at the exit.

    The next run uses the same database.
    """
    database = Database(settings, name="bench", publish=lambda messages: None)
    try:
        row, token = await database.transaction(
            lambda session: service.create_key(
                session, name="bench", role=Role.READER, actor=NO_ACTOR
            )
        )
        yield token
        await database.transaction(
            lambda session: service.revoke_key(session, row.public_id, actor=NO_ACTOR)
        )
    finally:
        await database.dispose()
