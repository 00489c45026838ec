"""Compares reads of the segments of one user and of 100 users with peers and baselines."""

import dataclasses
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Final

from bench import postgraphile, servers
from bench.api_keys import reader_key
from bench.comparison import compare, load_measurement
from bench.http import graphql_client
from bench.load import Load
from bench.peer_queries import CONSTANT_USER_ID
from bench.plan import Benchmark
from bench.queries import USER
from bench.servers import Server
from bench.table import Row

OURS: Final = "SegmentQL"
STRAWBERRY: Final = "Strawberry, a session per resolver"
POSTGRAPHILE: Final = "PostGraphile"
CONSTANT: Final = "uvicorn, a constant of the same size"
HAND_WRITTEN: Final = "hand-written ASGI with asyncpg, one statement per request"
WITHOUT_KEY: Final = "without them"

REQUEST_PREFIXES: Final = {
    OURS: "",
    STRAWBERRY: "Reference",
    POSTGRAPHILE: "PostGraphile",
    CONSTANT: "Constant",
    HAND_WRITTEN: "",
}
"""The prefixes of the kinds of requests by server."""

CPU: Final = "server_cpu_us_per_request"

KEY_CONNECTIONS: Final = 64
MAX_KEY_COST: Final = 1.1
"""The maximum CPU time with an API key and a rate limit, as a multiple of that without them."""

RATE_PER_SECOND: Final = 100_000
"""The rate limit of the API key, which one process cannot reach."""

Results = Mapping[str, Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Case:
    """A load, and its targets by the server with which SegmentQL is compared. None: no target."""

    reads: str
    connections: int
    request: str
    min_throughput_ratios: Mapping[str, float | None]
    """The minimum throughputs, as multiples of the throughput of the other server."""
    max_cpu_ratios: Mapping[str, float | None]
    """The maximum CPU times per request, as multiples of the CPU time of the other server. The
    throughput is not compared, because the load client limits that of these servers."""

    @property
    def name(self) -> str:
        return f"{self.reads}, {self.connections} connections"


CASES: Final = (
    Case(
        "a user's segments",
        16,
        "OneUser",
        {STRAWBERRY: 10, POSTGRAPHILE: 2},
        {CONSTANT: None, HAND_WRITTEN: None},
    ),
    Case(
        "a user's segments",
        64,
        "OneUser",
        {STRAWBERRY: 10, POSTGRAPHILE: 3},
        {CONSTANT: 3, HAND_WRITTEN: None},
    ),
    Case("100 users' segments", 16, "ManyUsers", {STRAWBERRY: None, POSTGRAPHILE: 3}, {}),
)


async def measure(bench: Benchmark) -> AsyncIterator[Row]:
    """Compare SegmentQL and the others, with one process each, on the same database."""
    settings = bench.servers.settings(bench.main)
    peer = postgraphile.find_postgraphile()
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(
            servers.run_api(bench.servers, settings, "bench-api")
        )
        running = {
            STRAWBERRY: servers.run_reference(bench.servers, settings),
            CONSTANT: servers.run_constant(bench.servers, await _constant_body(ours)),
            HAND_WRITTEN: servers.run_hand_written(bench.servers, settings),
        }
        if isinstance(peer, postgraphile.NotInstalled):
            bench.print_line(f"PostGraphile is skipped: {peer.reason}")
        else:
            running[POSTGRAPHILE] = postgraphile.postgraphile_server(
                bench.servers, peer, bench.main
            )
        others = {
            name: await stack.enter_async_context(context) for name, context in running.items()
        }
        for case in CASES:
            bench.print_line(case.name)
            compared = {*case.min_throughput_ratios, *case.max_cpu_ratios}
            candidates = {name: others[name] for name in others if name in compared}
            results = await _measure_case(bench, case, {OURS: ours, **candidates})
            for name, min_ratio in case.min_throughput_ratios.items():
                if name in results:
                    yield _throughput_row(case, results, name, min_ratio)
                elif isinstance(peer, postgraphile.NotInstalled):
                    yield Row(
                        name=case.name,
                        ours=throughput(results[OURS]),
                        min_value=min_ratio,
                        skip_reason=peer.reason,
                    )
            for name, max_ratio in case.max_cpu_ratios.items():
                yield cpu_row(case.name, results, name, max_ratio)
    yield await _measure_with_key(bench)


async def _measure_with_key(bench: Benchmark) -> Row:
    """Compare two processes of SegmentQL, of which one has keys and a rate limit.

    A slice of the other servers would be between the two, so they have stopped.
    """
    without_key = bench.servers.settings(bench.main)
    with_key = without_key.model_copy(
        update={"auth": "required", "rate_per_second": RATE_PER_SECOND}
    )
    name = f"a user's segments, {KEY_CONNECTIONS} connections, with a key and a rate limit"
    bench.print_line(name)
    plan = bench.plan
    async with (
        servers.run_api(bench.servers, with_key, "bench-api-with-key") as limited,
        servers.run_api(bench.servers, without_key, "bench-api") as unlimited,
        reader_key(without_key) as token,
    ):
        load = Load(
            port=limited.port,
            request="OneUser",
            sizes=plan.main,
            connections=KEY_CONNECTIONS,
            seconds=plan.slice_seconds,
            warm_up_seconds=plan.warm_up_seconds,
            check_every=plan.check_every,
            max_requests=plan.max_slice_requests,
            token=token,
        )
        results = await compare(
            plan.slices,
            {
                OURS: load_measurement(limited, load),
                WITHOUT_KEY: load_measurement(
                    unlimited, dataclasses.replace(load, port=unlimited.port, token="")
                ),
            },
        )
    return cpu_row(name, results, WITHOUT_KEY, MAX_KEY_COST)


async def _constant_body(api: Server) -> str:
    """Return the response of the API to the query for one user."""
    async with graphql_client(api.port) as client:
        data = await client(USER, id=str(CONSTANT_USER_ID))
    return json.dumps({"data": data}, separators=(",", ":"))


async def _measure_case(
    bench: Benchmark, case: Case, candidates: Mapping[str, Server]
) -> dict[str, dict[str, float]]:
    plan = bench.plan

    def load(name: str, server: Server) -> Load:
        return Load(
            port=server.port,
            request=REQUEST_PREFIXES[name] + case.request,
            sizes=plan.main,
            connections=case.connections,
            seconds=plan.slice_seconds,
            warm_up_seconds=plan.warm_up_seconds,
            check_every=plan.check_every,
            max_requests=plan.max_slice_requests,
        )

    return await compare(
        plan.slices,
        {name: load_measurement(server, load(name, server)) for name, server in candidates.items()},
    )


def _throughput_row(case: Case, results: Results, peer: str, min_ratio: float | None) -> Row:
    ours, theirs = results[OURS], results[peer]
    return Row(
        name=case.name,
        ours=throughput(ours),
        compared=f"{peer}: {throughput(theirs)}",
        value=ours["per_second"] / theirs["per_second"],
        min_value=min_ratio,
        details={"ours": ours, "theirs": theirs},
    )


def cpu_row(load: str, results: Results, limit: str, max_ratio: float | None) -> Row:
    ours, theirs = results[OURS], results[limit]
    name = f"CPU per request of {load}"
    if CPU not in ours or CPU not in theirs:
        return Row(name=name, ours=throughput(ours), max_value=max_ratio, skip_reason="no /proc")
    return Row(
        name=name,
        ours=f"{ours[CPU]:,.0f} us",
        compared=f"{limit}: {theirs[CPU]:,.0f} us ({theirs['per_second']:,.0f} req/s)",
        # /proc counts in hundredths of a second, so the time may be 0 at toy size.
        value=ours[CPU] / theirs[CPU] if theirs[CPU] else None,
        max_value=max_ratio,
        details={"ours": ours, "theirs": theirs},
    )


def throughput(result: Mapping[str, float]) -> str:
    """Return the requests per second, and the CPU time of the server per request if known."""
    cpu = f", {result[CPU]:,.0f} us CPU" if CPU in result else ""
    return f"{result['per_second']:,.0f} req/s{cpu}"
