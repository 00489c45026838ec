"""Compares candidates in alternating slices, so that noise on the machine affects all of them."""

import asyncio
import dataclasses
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from bench.load import Load, LoadResult, run_load
from bench.servers import Server

Measurement = Callable[[int], Awaitable[Mapping[str, float]]]
"""A function that measures the slice with a given number and returns values by name."""


class WrongResponse(Exception):
    """A server returned an error, a wrong response, or no response in time."""


async def compare(
    slices: int, candidates: Mapping[str, Measurement]
) -> dict[str, dict[str, float]]:
    """Measure each candidate once per slice, and return the medians of its values."""
    results: dict[str, list[Mapping[str, float]]] = {name: [] for name in candidates}
    for number in range(slices):
        # The order alternates, because a candidate may affect the one after it.
        ordered = list(candidates.items())
        for name, measure in ordered if number % 2 == 0 else reversed(ordered):
            results[name].append(await measure(number))
    return {name: _medians(values) for name, values in results.items()}


def load_measurement(server: Server, load: Load) -> Measurement:
    """Return a measurement of a load on a server. Each slice requests other random users."""

    async def measure(number: int) -> Mapping[str, float]:
        cpu_before = server.cpu_seconds()
        result = await run_checked_load(dataclasses.replace(load, seed=load.seed + number))
        cpu_after = server.cpu_seconds()
        if cpu_before is None or cpu_after is None:
            return measured_values(result, None)
        return measured_values(result, cpu_after - cpu_before)

    return measure


def with_background_work(load: Measurement, work: Callable[[int], Awaitable[None]]) -> Measurement:
    """Return a measurement of a load during some work, which is repeated until the load ends."""

    async def measure(number: int) -> Mapping[str, float]:
        has_ended = asyncio.Event()

        async def repeat_work() -> None:
            while not has_ended.is_set():
                await work(number)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(repeat_work())
            values = await load(number)
            has_ended.set()
        return values

    return measure


async def run_checked_load(load: Load) -> LoadResult:
    """Run a load of which every response must be correct.

    Raises:
        WrongResponse: A response is wrong. The message has the first one.
    """
    result = await run_load(load)
    if not result.failed and not result.requests:
        raise WrongResponse(
            f"{load.request}: no response to a request of the measured {load.seconds:g} s; the"
            " machine may be overloaded"
        )
    if result.failed or not result.checked:
        raise WrongResponse(
            f"{load.request}: {result.requests} requests measured, {result.checked} responses"
            f" checked, {result.failed} wrong; the first: {result.first_failure}"
        )
    return result


def measured_values(result: LoadResult, cpu_seconds: float | None) -> dict[str, float]:
    """Return the numbers of a result, and the CPU time of the server per response if it is known.

    Args:
        result: The result of the load.
        cpu_seconds: The CPU time of the server during the load, including the warm-up.
    """
    values = {
        name: float(value)
        for name, value in dataclasses.asdict(result).items()
        if isinstance(value, int | float)
    }
    if cpu_seconds is not None:
        values["server_cpu_us_per_request"] = 1e6 * cpu_seconds / max(result.responses, 1)
    return values


def _medians(slices: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names: dict[str, Any] = {name: None for values in slices for name in values}
    return {
        name: statistics.median([values[name] for values in slices if name in values])
        for name in names
    }
