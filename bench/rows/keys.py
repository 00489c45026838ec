"""The price of knowing who asks: a single-user read with a key, beside one that needs none."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench import servers
from bench.contest import contest, loaded
from bench.load import Load
from bench.plan import Bench
from bench.table import Row
from segmentql.adapters.database import Database
from segmentql.keys import service
from segmentql.settings import Settings
from segmentql.tables import Role

CONNECTIONS = 16
WHAT = "CPU of a single-user read with a key"


async def measure(bench: Bench) -> AsyncIterator[Row]:
    """Both beside each other: the processor's time, for requests per second say it less surely."""
    plan = bench.plan
    bench.say("a user's segments, with a key and without")
    off = bench.servers.settings(bench.main)
    required = off.model_copy(update={"auth": "required"})
    async with (
        _key(off) as token,
        servers.api(bench.servers, off, "bench-api") as open_to_all,
        servers.api(bench.servers, required, "bench-api-keys") as guarded,
    ):

        def load(port: int, token: str | None) -> Load:
            return Load(
                port=port,
                ask="OneUser",
                sizes=plan.main,
                connections=CONNECTIONS,
                seconds=plan.slice_seconds,
                warm_up_seconds=plan.warm_up_seconds,
                check_every=plan.check_every,
                max_requests=plan.slice_requests,
                token=token,
            )

        found = await contest(
            plan.slices,
            {
                "with": loaded(guarded, load(guarded.port, token)),
                "without": loaded(open_to_all, load(open_to_all.port, None)),
            },
        )
    key, none = (found[name].get("server_cpu_us_per_request") for name in ("with", "without"))
    if not key or not none:
        yield Row(what=WHAT, ours="", at_most=1.1, skipped="no /proc to read it from")
        return
    yield Row(
        what=WHAT,
        ours=f"{key:.0f} us",
        compared=f"no key needed: {none:.0f} us",
        measured=key / none,
        at_most=1.1,
        details=found,
    )


@asynccontextmanager
async def _key(settings: Settings) -> AsyncIterator[str]:
    """A READER's key, revoked at the end: the data are kept for the next run."""
    database = Database(settings, name="bench", deliver=lambda messages: None)
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
