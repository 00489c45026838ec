"""Compares the latency of a read from few and from many memberships."""

from collections.abc import AsyncIterator
from typing import Final

from bench import servers
from bench.comparison import compare, load_measurement
from bench.data import Sizes
from bench.load import Load
from bench.plan import Benchmark
from bench.servers import Server
from bench.table import Row

READS_PER_SECOND: Final = 200
"""The request rate. It is low enough that no read waits for another."""


async def measure(bench: Benchmark) -> AsyncIterator[Row]:
    plan = bench.plan
    large_sizes, large_database = plan.large or plan.main, bench.large or bench.main
    bench.print_line(
        f"reads among {plan.small.memberships:,} and {large_sizes.memberships:,} memberships"
    )

    def load(server: Server, sizes: Sizes) -> Load:
        return Load(
            port=server.port,
            request="OneUser",
            sizes=sizes,
            rate=READS_PER_SECOND,
            seconds=plan.slice_seconds,
            warm_up_seconds=plan.warm_up_seconds,
            check_every=plan.check_every,
            max_requests=plan.max_slice_requests,
        )

    async with (
        servers.run_api(
            bench.servers, bench.servers.settings(bench.small), "bench-api-small"
        ) as small,
        servers.run_api(
            bench.servers, bench.servers.settings(large_database), "bench-api"
        ) as large,
    ):
        results = await compare(
            plan.slices,
            {
                "few": load_measurement(small, load(small, plan.small)),
                "many": load_measurement(large, load(large, large_sizes)),
            },
        )
    few, many = results["few"], results["many"]
    yield Row(
        name=f"p50 of a read with {large_sizes.memberships:,} memberships",
        ours=f"{many['p50_ms']:.2f} ms",
        compared=f"with {plan.small.memberships:,}: {few['p50_ms']:.2f} ms",
        value=many["p50_ms"] / few["p50_ms"],
        max_value=1.2,
        details=results,
    )
