"""Compares reads and new users by key with the same by id."""

from collections.abc import AsyncIterator, Mapping
from typing import Final

from bench import servers
from bench.comparison import Measurement, compare, load_measurement
from bench.data import SET_USER_KEYS
from bench.databases import cloned_database, superuser_connection
from bench.load import Load
from bench.plan import Benchmark
from bench.servers import Server
from bench.table import Row

CLIENTS: Final = 16
MAX_READ_COST: Final = 1.15
"""The maximum time of a read by key, as a multiple of the time of the same read by id."""

MIN_STORE_RATE: Final = 0.5
"""The minimum rate of new users by key, as a fraction of the rate of new users by id."""

READS: Final = (
    # name, kind of request by id, kind of request by key
    ("a user's segments", "OneUser", "OneUserByKey"),
    ("100 users' segments", "ManyUsers", "ManyUsersByKey"),
)


async def measure(bench: Benchmark) -> AsyncIterator[Row]:
    """Compare requests by key and by id to one API process, in alternating slices."""
    async with cloned_database(bench.servers, bench.main) as clone:
        async with superuser_connection(bench.servers, clone) as sql:
            await sql.execute(SET_USER_KEYS)
            await sql.execute("VACUUM (FULL, FREEZE, ANALYZE) users")
            await sql.execute("CHECKPOINT")
        settings = bench.servers.settings(clone)
        async with servers.run_api(bench.servers, settings, "bench-api") as api:
            for name, by_id, by_key in READS:
                bench.print_line(f"{name} by key and by id, {CLIENTS} connections")
                results = await _compare(bench, api, by_id, by_key)
                yield Row(
                    name=f"{name} by key, time per request, {CLIENTS} connections",
                    ours=_rate(results["by key"], "req/s"),
                    compared=f"by id: {_rate(results['by id'], 'req/s')}",
                    value=results["by id"]["per_second"] / results["by key"]["per_second"],
                    max_value=MAX_READ_COST,
                    details=results,
                )
            bench.print_line(f"new users by key and by id, {CLIENTS} connections")
            results = await _compare(bench, api, "NewUser", "NewUserByKey")
            yield Row(
                name=f"new users by key, {CLIENTS} connections",
                ours=_rate(results["by key"], "per second"),
                compared=f"by id: {_rate(results['by id'], 'per second')}",
                value=results["by key"]["per_second"] / results["by id"]["per_second"],
                min_value=MIN_STORE_RATE,
                details=results,
            )


async def _compare(
    bench: Benchmark, api: Server, by_id: str, by_key: str
) -> dict[str, dict[str, float]]:
    return await compare(
        bench.plan.slices,
        {"by key": _measurement(bench, api, by_key), "by id": _measurement(bench, api, by_id)},
    )


def _measurement(bench: Benchmark, api: Server, request: str) -> Measurement:
    plan = bench.plan

    async def measure(number: int) -> Mapping[str, float]:
        load = Load(
            port=api.port,
            request=request,
            sizes=plan.main,
            connections=CLIENTS,
            seconds=plan.slice_seconds,
            warm_up_seconds=plan.warm_up_seconds,
            shard=(number, plan.slices),
            check_every=plan.check_every,
            max_requests=plan.max_slice_requests,
        )
        return await load_measurement(api, load)(number)

    return measure


def _rate(result: Mapping[str, float], unit: str) -> str:
    return f"{result['per_second']:,.0f} {unit}"
