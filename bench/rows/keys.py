"""The price of knowing who asks: a single-user read with a key, beside one that needs none."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from bench.in_process import Turns, run_turns
from bench.plan import Bench
from bench.servers import environment_of
from bench.table import Row
from segmentql.adapters.database import Database
from segmentql.keys import service
from segmentql.settings import Settings
from segmentql.tables import Role

PAIRS: Final = 300


async def measure(bench: Bench) -> AsyncIterator[Row]:
    """CPU time, for requests per second say it less surely."""
    bench.say("a user's segments, with a key and without")
    settings = bench.servers.settings(bench.main)
    async with _key(settings) as token:
        pairs = PAIRS if bench.plan.judges else 1
        turns = Turns(sizes=bench.plan.main, token=token, pairs=pairs)
        figures = await run_turns(turns, environment_of(settings))
    yield Row(
        what="CPU of a single-user read with a key, without HTTP's",
        ours=f"{figures.with_key_us:.0f} us",
        compared=f"no key needed: {figures.without_key_us:.0f} us",
        measured=figures.ratio,
        at_most=1.1,
        details=dataclasses.asdict(figures),
    )


@asynccontextmanager
async def _key(settings: Settings) -> AsyncIterator[str]:
    """A READER's key, revoked at the end: the data are kept for the next run."""
    database = Database(settings, name="bench", publish=lambda messages: None)
    try:
        row, token = await database.transaction(
            lambda session: service.create_key(session, name="bench", role=Role.READER, actor=None)
        )
        yield token
        await database.transaction(
            lambda session: service.revoke_key(session, row.public_id, actor=None)
        )
    finally:
        await database.dispose()
