"""Compares reads of the segments of one user and of 100 users with peers."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Final

from bench import postgraphile, servers
from bench.comparison import compare, load_measurement
from bench.load import Load
from bench.plan import Benchmark
from bench.servers import Server
from bench.table import Row

OURS: Final = "SegmentQL"
STRAWBERRY: Final = "Strawberry, a session per resolver"
POSTGRAPHILE: Final = "PostGraphile"

CASES: Final = (
    # name, connections, kind of request, minimum ratio to each peer
    ("a user's segments", 16, "OneUser", {STRAWBERRY: 10, POSTGRAPHILE: 3}),
    ("a user's segments", 64, "OneUser", {STRAWBERRY: 10, POSTGRAPHILE: 3}),
    ("100 users' segments", 16, "ManyUsers", {STRAWBERRY: None, POSTGRAPHILE: 4}),
)


async def measure(bench: Benchmark) -> AsyncIterator[Row]:
    """Compare SegmentQL and its peers, with one process each, on the same database."""
    settings = bench.servers.settings(bench.main)
    peer = postgraphile.find_postgraphile(bench.folder)
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(
            servers.run_api(bench.servers, settings, "bench-api")
        )
        peers = {
            STRAWBERRY: (
                "Reference",
                await stack.enter_async_context(servers.run_reference(bench.servers, settings)),
            )
        }
        if isinstance(peer, postgraphile.NotInstalled):
            bench.print_line(f"PostGraphile is skipped: {peer.reason}")
        else:
            running = postgraphile.postgraphile_server(bench.servers, peer, bench.main)
            peers[POSTGRAPHILE] = ("PostGraphile", await stack.enter_async_context(running))
        for reads, connections, request, targets in CASES:
            name = f"{reads}, {connections} connections"
            bench.print_line(name)
            results = await _measure_case(bench, request, connections, ours, peers)
            for peer_name, min_ratio in targets.items():
                if peer_name in results:
                    yield _row(name, results, peer_name, min_ratio)
                elif isinstance(peer, postgraphile.NotInstalled):
                    yield Row(
                        name=name,
                        ours=_throughput(results),
                        min_value=min_ratio,
                        skip_reason=peer.reason,
                    )


async def _measure_case(
    bench: Benchmark,
    request: str,
    connections: int,
    ours: Server,
    peers: Mapping[str, tuple[str, Server]],
) -> dict[str, dict[str, float]]:
    plan = bench.plan

    def load(server: Server, kind: str) -> Load:
        return Load(
            port=server.port,
            request=kind,
            sizes=plan.main,
            connections=connections,
            seconds=plan.slice_seconds,
            warm_up_seconds=plan.warm_up_seconds,
            check_every=plan.check_every,
            max_requests=plan.max_slice_requests,
        )

    candidates = {OURS: load_measurement(ours, load(ours, request))}
    for name, (prefix, server) in peers.items():
        candidates[name] = load_measurement(server, load(server, prefix + request))
    return await compare(plan.slices, candidates)


def _row(
    name: str, results: Mapping[str, Mapping[str, float]], peer: str, min_ratio: float | None
) -> Row:
    ours, theirs = results[OURS], results[peer]
    return Row(
        name=name,
        ours=_throughput(results),
        compared=f"{peer}: {theirs['per_second']:,.0f} req/s",
        value=ours["per_second"] / theirs["per_second"],
        min_value=min_ratio,
        details={"ours": ours, "theirs": theirs},
    )


def _throughput(results: Mapping[str, Mapping[str, float]]) -> str:
    return f"{results[OURS]['per_second']:,.0f} req/s"
