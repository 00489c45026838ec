"""`updateUserSegments`, beside pgbench running the same SQL."""

from collections.abc import AsyncIterator, Mapping
from typing import Final

from bench import pgbench, servers
from bench.comparison import Measure, contest, loaded
from bench.databases import cloned
from bench.load import Load
from bench.plan import Bench
from bench.servers import Server
from bench.table import Row
from segmentql.local import with_database

CLIENTS: Final = 16


async def measure(bench: Bench) -> AsyncIterator[Row]:
    """Each change is of a user whom no other changes: two joins and two leaves, always."""
    sizes = bench.plan.main
    async with cloned(bench.servers, bench.main) as clone:
        settings = bench.servers.settings(clone)
        new_user = sizes.users + 1
        statements = await pgbench.overheard_change(settings, sizes, new_user)
        yield Row(
            what="statements of a change after BEGIN",
            ours=str(len(statements)),
            measured=len(statements),
            unit="",
            at_most=2,
        )
        bench.say(f"changes, {CLIENTS} connections")
        script = bench.folder / "change.pgbench"

        async def by_pgbench(number: int) -> Mapping[str, float]:
            part, parts = _share(bench, number, ours=False)
            users = range(part + 1, sizes.users + 1, parts)
            script.write_text(pgbench.script(statements, sizes, new_user, users))
            return await pgbench.run_pgbench(
                script,
                with_database(bench.servers.service_url, clone),
                clients=CLIENTS,
                seconds=round(bench.plan.slice_seconds) if bench.plan.judges else 1,
            )

        async with servers.api(bench.servers, settings, "bench-api") as api:
            found = await contest(
                bench.plan.slices, {"ours": _by_api(bench, api), "pgbench": by_pgbench}
            )
    ours, theirs = found["ours"], found["pgbench"]
    yield Row(
        what="updateUserSegments, add 2 and remove 2",
        ours=f"{ours['per_second']:,.0f} a second",
        compared=f"pgbench, the same SQL: {theirs['per_second']:,.0f} a second",
        measured=ours["per_second"] / theirs["per_second"],
        at_least=0.4,
        details=found,
    )


def _by_api(bench: Bench, api: Server) -> Measure:
    async def measure(number: int) -> Mapping[str, float]:
        part, parts = share = _share(bench, number, ours=True)
        load = Load(
            port=api.port,
            ask="Change",
            sizes=bench.plan.main,
            connections=CLIENTS,
            seconds=bench.plan.slice_seconds,
            share=share,
            check_every=bench.plan.check_every,
            # Each user once.
            max_requests=min(
                bench.plan.slice_requests, len(range(part, bench.plan.main.users, parts))
            ),
        )
        return await loaded(api, load)(number)

    return measure


def _share(bench: Bench, number: int, *, ours: bool) -> tuple[int, int]:
    return 2 * number + ours, 2 * bench.plan.slices
