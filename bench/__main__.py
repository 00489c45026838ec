"""The command `python -m bench`."""

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
from bench import peers, sizing, startup
from bench.comparison import WrongResponse
from bench.data import Sizes
from bench.databases import ensure_database
from bench.plan import LARGE, ROLLOUT, ROLLOUT_SMALL, SMALL, SMOKE, Benchmark, Plan
from bench.rows import ROWS
from bench.table import Row, format_table, write_json
from segmentql.errors import SegmentQLError
from segmentql.local import local_servers

POSTGRES = {
    # Rare checkpoints, so that none affects only one of the compared candidates. Commits stay
    # durable.
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
@click.option("--large", is_flag=True, help="Also read from 10 million memberships.")
@click.option("--smoke", is_flag=True, help="Run everything at toy size, without targets.")
@click.option("--only", multiple=True, type=click.Choice(["startup", *ROWS]))
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=".segmentql-bench",
    show_default=True,
    help="The folder that keeps the generated data for the next run.",
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
    """Run the benchmark, and print a table of results and targets."""
    try:
        if smoke:
            with tempfile.TemporaryDirectory(prefix="segmentql-bench-") as name:
                folder = Path(name)
                folder.chmod(0o755)  # the servers of root run as another account
                asyncio.run(_run(SMOKE, only, folder, output))
        else:
            plan = Plan(
                main=Sizes(users, memberships, segments),
                small=replace(SMALL, segments=segments),
                large=LARGE if large else None,
                rollout=ROLLOUT,
                rollout_small=ROLLOUT_SMALL,
                report_rows=1_000_000,
                member_count_rows=10_000_000,
                slices=3,
                slice_seconds=4,
                warm_up_seconds=0.5,
                max_slice_requests=1_000_000,
                check_every=50,
                idle_delay_seconds=15,
                idle_seconds=60,
                checks_targets=True,
            )
            asyncio.run(_run(plan, only, data_dir, output))
    except (SegmentQLError, WrongResponse, ValueError) as error:
        raise click.ClickException(str(error)) from error


@main.command("peers")
def install_peers() -> None:
    """Install the pinned PostGraphile, and a Node that it supports."""
    peers.install(_print_line)


@main.command("sizing")
@click.option("--users", default=200_000, show_default=True)
@click.option("--memberships", default=1_000_000, show_default=True)
def measure_sizes(users: int, memberships: int) -> None:
    """Measure the bytes of rows, VACUUM, and the drop of old history."""

    async def run_measure() -> None:
        with tempfile.TemporaryDirectory(prefix="segmentql-sizing-") as name:
            folder = Path(name)
            folder.chmod(0o755)  # the servers of root run as another account
            async for line in sizing.measure(users, memberships, folder):
                _print_line(line)

    asyncio.run(run_measure())


@main.command()
@click.option("--rounds", default=100, show_default=True)
@click.option("--seed", type=int, help="The seed of an earlier run, to repeat it.")
def chaos(rounds: int, seed: int | None) -> None:
    """Kill random processes under load for many rounds, and check the data."""
    raise SystemExit(chaos_rounds.run(rounds, seed))


async def _run(plan: Plan, only: Sequence[str], data_dir: Path, output: Path) -> None:
    started = time.monotonic()
    load, *_ = os.getloadavg()
    _print_line(f"{os.cpu_count()} processors, load {load:.1f} (0 on an idle machine)")
    rows: list[Row] = []
    async for row in _measure_measure_rows(plan, only or ["startup", *ROWS], data_dir):
        rows.append(row)
        _print_line(
            "  " + "; ".join(cell for cell in row.cells(with_targets=plan.checks_targets) if cell)
        )
    write_json(output, rows, {**MACHINE, "load_at_start": load})
    _print_line(f"\n{format_table(rows, with_targets=plan.checks_targets)}\n")
    if not plan.checks_targets:
        _print_line("Everything works. At toy size the results are not meaningful.")
    _print_line(f"{time.monotonic() - started:.0f} s; details in {output}")


async def _measure_measure_rows(
    plan: Plan, names: Sequence[str], data_dir: Path
) -> AsyncIterator[Row]:
    if "startup" in names:
        _print_line("start of `segmentql up`")
        async for row in startup.measure():
            yield row
    async with local_servers(data_dir, postgres_settings=POSTGRES) as servers:
        bench = Benchmark(
            plan=plan,
            servers=servers,
            main=await ensure_database(servers, plan.main, _print_line),
            small=await ensure_database(servers, plan.small, _print_line),
            large=await ensure_database(servers, plan.large, _print_line) if plan.large else None,
            folder=data_dir,
            print_line=_print_line,
        )
        for name, measure in ROWS.items():
            if name in names:
                async for row in measure(bench):
                    yield row


def _print_line(line: str) -> None:
    click.echo(line)


if __name__ == "__main__":
    main(prog_name="python -m bench")
