"""Contestants measured in turns, slice by slice, so that a noisy moment hits them alike."""

import asyncio
import dataclasses
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from bench.load import Load, Result, run_load
from bench.servers import Server

Measure = Callable[[int], Awaitable[Mapping[str, float]]]
"""Measures one slice, by its number; figures by name."""


class WrongAnswer(Exception):
    """A server gave errors, something else than what is true, or nothing in time."""


async def contest(slices: int, contestants: Mapping[str, Measure]) -> dict[str, dict[str, float]]:
    """Measure each contestant in each slice; the medians of their figures."""
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in contestants}
    for number in range(slices):
        # Each goes first in turn: what the first one leaves behind is not always the same one's.
        turns = list(contestants.items())
        for name, measure in turns if number % 2 == 0 else reversed(turns):
            found[name].append(await measure(number))
    return {name: _medians(figures) for name, figures in found.items()}


def loaded(server: Server, load: Load) -> Measure:
    """A slice is this load on a server; each slice asks other users."""

    async def measure(number: int) -> Mapping[str, float]:
        used = server.cpu_seconds()
        result = await checked(dataclasses.replace(load, seed=load.seed + number))
        figures = _figures(result)
        used_then = server.cpu_seconds()
        if used is not None and used_then is not None:
            # Of the slice with its warm-up, so a little more than it was.
            measured_share = load.seconds / (load.seconds + load.warm_up_seconds)
            cpu_seconds = (used_then - used) * measured_share
            figures["server_cpu_us_per_request"] = 1e6 * cpu_seconds / max(result.requests, 1)
        return figures

    return measure


def while_working(load: Measure, work: Callable[[int], Awaitable[None]]) -> Measure:
    """The load while some work is done, again and again and never none."""

    async def measure(number: int) -> Mapping[str, float]:
        ended = asyncio.Event()

        async def keep_working() -> None:
            while not ended.is_set():
                await work(number)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_working())
            figures = await load(number)
            ended.set()
        return figures

    return measure


async def checked(load: Load) -> Result:
    """Run a load that every answer to must be right.

    Raises:
        WrongAnswer: one was not; the first is told.
    """
    result = await run_load(load)
    if result.failed or not result.checked or not result.requests:
        raise WrongAnswer(
            f"{load.ask}: {result.requests} measured, {result.checked} looked at,"
            f" {result.failed} wrong; the first: {result.first_failure}"
        )
    return result


def _figures(result: Result) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in dataclasses.asdict(result).items()
        if isinstance(value, int | float)
    }


def _medians(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names: dict[str, Any] = {name: None for one in figures for name in one}
    return {
        name: statistics.median([one[name] for one in figures if name in one]) for name in names
    }
