"""How long a read takes where there is little, and where there is much."""

from collections.abc import AsyncIterator
from typing import Final

from bench import servers
from bench.comparison import contest, loaded
from bench.data import Sizes
from bench.load import Load
from bench.plan import Bench
from bench.servers import Server
from bench.table import Row

READS_A_SECOND: Final = 200
"""Few enough that none waits for another: it is the read's own time that is asked for."""


async def measure(bench: Bench) -> AsyncIterator[Row]:
    plan = bench.plan
    much, much_name = plan.large or plan.main, bench.large or bench.main
    bench.say(f"reads among {plan.small.memberships:,} and {much.memberships:,} memberships")

    def load(server: Server, sizes: Sizes) -> Load:
        return Load(
            port=server.port,
            ask="OneUser",
            sizes=sizes,
            rate=READS_A_SECOND,
            seconds=plan.slice_seconds,
            warm_up_seconds=plan.warm_up_seconds,
            check_every=plan.check_every,
            max_requests=plan.slice_requests,
        )

    async with (
        servers.api(bench.servers, bench.servers.settings(bench.small), "bench-api-small") as small,
        servers.api(bench.servers, bench.servers.settings(much_name), "bench-api") as large,
    ):
        found = await contest(
            plan.slices,
            {
                "little": loaded(small, load(small, plan.small)),
                "much": loaded(large, load(large, much)),
            },
        )
    little, at_much = found["little"], found["much"]
    yield Row(
        what=f"p50 of a read at {much.memberships:,} memberships",
        ours=f"{at_much['p50_ms']:.2f} ms",
        compared=f"at {plan.small.memberships:,}: {little['p50_ms']:.2f} ms",
        measured=at_much["p50_ms"] / little["p50_ms"],
        at_most=1.2,
        details=found,
    )
