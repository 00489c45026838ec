"""Compares reads of one user's segments through PgBouncer with those of a direct connection."""

import dataclasses
from collections.abc import AsyncIterator
from typing import Final

from bench import servers
from bench.comparison import compare, load_measurement
from bench.load import Load
from bench.pgbouncer import NOT_INSTALLED, find_pgbouncer, run_pgbouncer
from bench.plan import Benchmark
from bench.rows.reads import OURS, cpu_row, throughput
from bench.table import Row

DIRECT: Final = "without a pooler"
CONNECTIONS: Final = (16, 64)


async def measure(bench: Benchmark) -> AsyncIterator[Row]:
    """Compare two processes of SegmentQL on the same database, of which one uses PgBouncer."""
    program = find_pgbouncer()
    if program is None:
        yield Row(name="a user's segments through PgBouncer", ours="", skip_reason=NOT_INSTALLED)
        return
    plan, direct = bench.plan, bench.servers.settings(bench.main)
    async with run_pgbouncer(program, direct.database_url, {}) as url:
        behind = direct.model_copy(update={"database_url": url, "database_pooler": "transaction"})
        async with (
            servers.run_api(bench.servers, behind, "bench-api-pooler") as pooled_api,
            servers.run_api(bench.servers, direct, "bench-api") as direct_api,
        ):
            for connections in CONNECTIONS:
                name = f"a user's segments through PgBouncer, {connections} connections"
                bench.print_line(name)
                load = Load(
                    port=pooled_api.port,
                    request="OneUser",
                    sizes=plan.main,
                    connections=connections,
                    seconds=plan.slice_seconds,
                    warm_up_seconds=plan.warm_up_seconds,
                    check_every=plan.check_every,
                    max_requests=plan.max_slice_requests,
                )
                results = await compare(
                    plan.slices,
                    {
                        OURS: load_measurement(pooled_api, load),
                        DIRECT: load_measurement(
                            direct_api, dataclasses.replace(load, port=direct_api.port)
                        ),
                    },
                )
                pooled, unpooled = results[OURS], results[DIRECT]
                yield Row(
                    name=name,
                    ours=throughput(pooled),
                    compared=f"{DIRECT}: {throughput(unpooled)}",
                    value=pooled["per_second"] / unpooled["per_second"],
                    details={"ours": pooled, "theirs": unpooled},
                )
                yield cpu_row(name, results, DIRECT, None)
