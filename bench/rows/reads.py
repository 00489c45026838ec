"""Reads: a user's segments, and those of 100 users at once, beside peers."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Final

from bench import postgraphile, servers
from bench.comparison import contest, loaded
from bench.load import Load
from bench.plan import Bench
from bench.servers import Server
from bench.table import Row

OURS: Final = "SegmentQL"
STRAWBERRY: Final = "Strawberry, a session per resolver"
POSTGRAPHILE: Final = "PostGraphile"

QUESTIONS: Final = (
    # what, connections, ask, targets
    ("a user's segments", 16, "OneUser", {STRAWBERRY: 10, POSTGRAPHILE: 3}),
    ("a user's segments", 64, "OneUser", {STRAWBERRY: 10, POSTGRAPHILE: 3}),
    ("100 users' segments", 16, "ManyUsers", {STRAWBERRY: None, POSTGRAPHILE: 4}),
)


async def measure(bench: Bench) -> AsyncIterator[Row]:
    """Ours and the peers, one process each, on the same database."""
    settings = bench.servers.settings(bench.main)
    peer = postgraphile.installed(bench.folder)
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(servers.api(bench.servers, settings, "bench-api"))
        peers = {
            STRAWBERRY: (
                "Reference",
                await stack.enter_async_context(servers.reference(bench.servers, settings)),
            )
        }
        if isinstance(peer, postgraphile.Missing):
            bench.say(f"PostGraphile is left out: {peer.reason}")
        else:
            running = postgraphile.serving(bench.servers, peer, bench.main)
            peers[POSTGRAPHILE] = ("PostGraphile", await stack.enter_async_context(running))
        for what, connections, ask, targets in QUESTIONS:
            bench.say(f"{what}, {connections} connections")
            found = await _asked(bench, ask, connections, ours, peers)
            for name, at_least in targets.items():
                if name in found:
                    yield _row(f"{what}, {connections} connections", found, name, at_least)
                elif isinstance(peer, postgraphile.Missing):
                    yield Row(
                        what=f"{what}, {connections} connections",
                        ours=_said(found),
                        at_least=at_least,
                        skipped=peer.reason,
                    )


async def _asked(
    bench: Bench, ask: str, connections: int, ours: Server, peers: Mapping[str, tuple[str, Server]]
) -> dict[str, dict[str, float]]:
    plan = bench.plan

    def load(server: Server, kind: str) -> Load:
        return Load(
            port=server.port,
            ask=kind,
            sizes=plan.main,
            connections=connections,
            seconds=plan.slice_seconds,
            warm_up_seconds=plan.warm_up_seconds,
            check_every=plan.check_every,
            max_requests=plan.slice_requests,
        )

    contestants = {OURS: loaded(ours, load(ours, ask))}
    for name, (prefix, server) in peers.items():
        contestants[name] = loaded(server, load(server, prefix + ask))
    return await contest(plan.slices, contestants)


def _row(
    what: str, found: Mapping[str, Mapping[str, float]], peer: str, at_least: float | None
) -> Row:
    ours, theirs = found[OURS], found[peer]
    return Row(
        what=what,
        ours=_said(found),
        compared=f"{peer}: {theirs['per_second']:,.0f} req/s",
        measured=ours["per_second"] / theirs["per_second"],
        at_least=at_least,
        details={"ours": ours, "theirs": theirs},
    )


def _said(found: Mapping[str, Mapping[str, float]]) -> str:
    return f"{found[OURS]['per_second']:,.0f} req/s"
