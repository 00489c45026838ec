"""Compares `updateUserSegments` with pgbench and the same SQL."""

from collections.abc import AsyncIterator, Mapping
from typing import Final

from bench import pgbench, servers
from bench.comparison import Measurement, compare, load_measurement
from bench.databases import cloned_database
from bench.load import Load
from bench.plan import Benchmark
from bench.servers import Server
from bench.table import Row
from segmentql.local import with_database

CLIENTS: Final = 16


async def measure(bench: Benchmark) -> AsyncIterator[Row]:
    """Compare updates that add a user to two segments and remove the user from two.

    Each user is updated at most once.
    """
    sizes = bench.plan.main
    async with cloned_database(bench.servers, bench.main) as clone:
        settings = bench.servers.settings(clone)
        new_user = sizes.users + 1
        statements = await pgbench.capture_update_statements(settings, sizes, new_user)
        yield Row(
            name="SQL statements of an update after BEGIN",
            ours=str(len(statements)),
            value=len(statements),
            unit="",
            max_value=2,
        )
        bench.print_line(f"updates, {CLIENTS} connections")
        script_file = bench.folder / "update.pgbench"

        async def measure_pgbench(number: int) -> Mapping[str, float]:
            shard, shards = _shard(bench, number, ours=False)
            users = range(shard + 1, sizes.users + 1, shards)
            script_file.write_text(pgbench.build_script(statements, sizes, new_user, users))
            return await pgbench.run_pgbench(
                script_file,
                with_database(bench.servers.service_url, clone),
                clients=CLIENTS,
                seconds=round(bench.plan.slice_seconds) if bench.plan.checks_targets else 1,
            )

        async with servers.run_api(bench.servers, settings, "bench-api") as api:
            results = await compare(
                bench.plan.slices,
                {"ours": _api_measurement(bench, api), "pgbench": measure_pgbench},
            )
    ours, theirs = results["ours"], results["pgbench"]
    yield Row(
        name="updateUserSegments, add 2, remove 2",
        ours=f"{ours['per_second']:,.0f} per second",
        compared=f"pgbench, the same SQL: {theirs['per_second']:,.0f} per second",
        value=ours["per_second"] / theirs["per_second"],
        min_value=0.5,
        details=results,
    )


def _api_measurement(bench: Benchmark, api: Server) -> Measurement:
    async def measure(number: int) -> Mapping[str, float]:
        index, shards = shard = _shard(bench, number, ours=True)
        load = Load(
            port=api.port,
            request="UpdateSegments",
            sizes=bench.plan.main,
            connections=CLIENTS,
            seconds=bench.plan.slice_seconds,
            shard=shard,
            check_every=bench.plan.check_every,
            # Each user of the shard once.
            max_requests=min(
                bench.plan.max_slice_requests, len(range(index, bench.plan.main.users, shards))
            ),
        )
        return await load_measurement(api, load)(number)

    return measure


def _shard(bench: Benchmark, number: int, *, ours: bool) -> tuple[int, int]:
    return 2 * number + ours, 2 * bench.plan.slices
