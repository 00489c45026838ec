"""`python -m bench`: measure, and print one table."""

import asyncio
import os
import platform
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import click

from bench import chaos as chaos_rounds
from bench import startup
from bench.comparison import WrongAnswer
from bench.data import Sizes
from bench.databases import filled
from bench.plan import LARGE, ROLLOUT, ROLLOUT_SMALL, SMALL, SMOKE, Bench, Plan
from bench.rows import MEASURED
from bench.table import Row, rendered, write_json
from segmentql.errors import SegmentQLError
from segmentql.local import local_servers

POSTGRES = {
    # Durable as ever; only its checkpoints are further apart, so that none falls into one
    # contestant's slice and not into the other's.
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
}

MACHINE = {
    "processors": os.cpu_count(),
    "system": platform.platform(),
    "python": platform.python_version(),
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The benchmark of SegmentQL. See bench/README.md."""


@main.command()
@click.option("--users", default=200_000, show_default=True)
@click.option("--memberships", default=1_000_000, show_default=True)
@click.option("--segments", default=100, show_default=True)
@click.option("--large", is_flag=True, help="Also read among 10 million memberships.")
@click.option("--smoke", is_flag=True, help="Try the whole path at toy size; judge no time.")
@click.option("--only", multiple=True, type=click.Choice(["startup", *MEASURED]))
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=".segmentql-bench",
    show_default=True,
    help="Where the generated data are kept for the next run.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default="bench/results.json",
    show_default=True,
)
def run(
    users: int,
    memberships: int,
    segments: int,
    large: bool,  # noqa: FBT001 - click passes options by name
    smoke: bool,  # noqa: FBT001
    only: Sequence[str],
    data_dir: Path,
    output: Path,
) -> None:
    """Measure, and print a table of ratios against the targets."""
    try:
        if smoke:
            with tempfile.TemporaryDirectory(prefix="segmentql-bench-") as name:
                folder = Path(name)
                folder.chmod(0o755)  # root's servers run as another account, which must get in
                asyncio.run(_run(SMOKE, only, folder, output))
        else:
            plan = Plan(
                main=Sizes(users, memberships, segments),
                small=replace(SMALL, segments=segments),
                large=LARGE if large else None,
                rollout=ROLLOUT,
                rollout_small=ROLLOUT_SMALL,
                report_rows=1_000_000,
                slices=3,
                slice_seconds=4,
                warm_up_seconds=0.5,
                slice_requests=1_000_000,
                check_every=50,
                idle_after_seconds=15,
                idle_seconds=60,
                judges=True,
            )
            asyncio.run(_run(plan, only, data_dir, output))
    except (SegmentQLError, WrongAnswer, ValueError) as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.option("--rounds", default=100, show_default=True)
@click.option("--seed", type=int, help="Of an earlier run, to try it again.")
def chaos(rounds: int, seed: int | None) -> None:
    """Kill everything at random, again and again, and see whether the truth survives."""
    raise SystemExit(chaos_rounds.run(rounds, seed))


async def _run(plan: Plan, only: Sequence[str], data_dir: Path, output: Path) -> None:
    started = time.monotonic()
    load, *_ = os.getloadavg()
    _say(f"{os.cpu_count()} processors, load {load:.1f} now (0 where nothing else runs)")
    rows: list[Row] = []
    async for row in _rows(plan, only or ["startup", *MEASURED], data_dir):
        rows.append(row)
        _say("  " + "; ".join(cell for cell in row.cells(judged=plan.judges) if cell))
    write_json(output, rows, {**MACHINE, "load_at_start": load})
    _say(f"\n{rendered(rows, judged=plan.judges)}\n")
    if not plan.judges:
        _say("Toy size: these figures mean nothing, but everything works.")
    _say(f"{time.monotonic() - started:.0f} s; details in {output}")


async def _rows(plan: Plan, wanted: Sequence[str], data_dir: Path) -> AsyncIterator[Row]:
    if "startup" in wanted:
        _say("starts of `segmentql up`")
        async for row in startup.measure():
            yield row
    async with local_servers(data_dir, postgres_settings=POSTGRES) as servers:
        bench = Bench(
            plan=plan,
            servers=servers,
            main=await filled(servers, plan.main, _say),
            small=await filled(servers, plan.small, _say),
            large=await filled(servers, plan.large, _say) if plan.large else None,
            folder=data_dir,
            say=_say,
        )
        for name, measure in MEASURED.items():
            if name in wanted:
                async for row in measure(bench):
                    yield row


def _say(line: str) -> None:
    click.echo(line)


if __name__ == "__main__":
    main(prog_name="python -m bench")
