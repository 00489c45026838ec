"""Metrics of frequent events are exact at a scrape and reach other processes within a second."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from starlette.responses import Response

from segmentql import buffered_metrics
from segmentql.adapters.metrics_endpoint import metrics_response
from segmentql.buffered_metrics import BufferedCounter, BufferedGauge, BufferedHistogram
from segmentql.settings import Settings
from tests.conftest import Api, environment, until
from tests.metrics.samples import samples

AMOUNTS = (0, 0.5, 1, 1.5, 2, 2.5, 100)
"""Amounts below, at and above each bound of the tested histogram."""

COUNT_ON_A_LOOP = """
import asyncio, sys
from segmentql import metrics

async def count():
    for _ in range(3):
        metrics.REQUESTS.labels("read", "done").inc()
        metrics.REQUEST_DURATION_SECONDS.labels("read").observe(0.002)
    metrics.REQUESTS_IN_FLIGHT.inc(2)
    if sys.argv[1] == "waits":
        await asyncio.sleep(60)

asyncio.run(count())
"""


@pytest.fixture
def buffered() -> Iterator[tuple[BufferedCounter, BufferedGauge, BufferedHistogram]]:
    metrics = (
        BufferedCounter("test_events", "Events.", ["kind"]),
        BufferedGauge("test_level", "Level."),
        BufferedHistogram("test_seconds", "Seconds.", buckets=(1, 2)),
    )
    yield metrics
    for metric in metrics:
        REGISTRY.unregister(metric)


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


async def test_flush_adds_the_exact_counts(
    buffered: tuple[BufferedCounter, BufferedGauge, BufferedHistogram],
) -> None:
    counter, gauge, histogram = buffered
    for _ in range(2):  # the second round shows that a flush starts a new count
        counter.labels("a").inc()
        counter.labels("a").inc(2)
        gauge.inc(5)
        gauge.dec(2)
        for amount in AMOUNTS:
            histogram.observe(amount)
        buffered_metrics.flush()
    assert value("test_events_total", kind="a") == 6
    assert value("test_level") == 6
    assert value("test_seconds_sum") == 2 * sum(AMOUNTS)
    assert [value("test_seconds_bucket", le=bound) for bound in ("1.0", "2.0", "+Inf")] == [
        2 * 3,
        2 * 5,
        2 * 7,
    ]


def test_count_without_an_event_loop_is_flushed_at_once(
    buffered: tuple[BufferedCounter, BufferedGauge, BufferedHistogram],
) -> None:
    counter, gauge, histogram = buffered
    counter.labels("a").inc()
    gauge.set(3)
    histogram.observe(1)
    assert value("test_events_total", kind="a") == 1
    assert value("test_level") == 3
    assert value("test_seconds_count") == 1


async def test_scrape_includes_the_request_before_it(api: Api) -> None:
    name = 'segmentql_requests_total{operation="Scraped",outcome="done"}'
    duration = 'segmentql_request_duration_seconds_count{operation="Scraped"}'
    for number in (1, 2, 3):
        await api("query Scraped { __typename }")
        read = await samples(api.http)
        assert (read[name], read[duration]) == (number, number)
        assert read["segmentql_requests_in_flight"] == 0


def counts(settings: Settings, folder: Path) -> tuple[bool, bool]:
    """Return whether the counter and the histogram of the counting process are exposed."""
    response: Response = metrics_response(settings.model_copy(update={"metrics_dir": folder}))
    body = bytes(response.body)
    return (
        b'segmentql_requests_total{operation="read",outcome="done"} 3.0\n' in body,
        b'segmentql_request_duration_seconds_bucket{le="0.0025",operation="read"} 3.0\n' in body,
    )


def command(mode: str) -> list[str]:
    return [sys.executable, "-c", COUNT_ON_A_LOOP, mode]


def test_process_flushes_its_counts_when_it_ends(settings: Settings, tmp_path: Path) -> None:
    subprocess.run(
        command("ends"),
        env=environment(settings, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)),
        check=True,
    )
    assert counts(settings, tmp_path) == (True, True)


async def test_running_process_flushes_its_counts(settings: Settings, tmp_path: Path) -> None:
    """It starts a process and waits for its flush, which takes more than a second."""
    process = await asyncio.create_subprocess_exec(
        *command("waits"), env=environment(settings, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    )
    try:

        async def is_flushed() -> bool:
            return counts(settings, tmp_path) == (True, True)

        await until(is_flushed)
    finally:
        process.kill()
        await process.wait()
    assert counts(settings, tmp_path) == (True, True)  # a killed process keeps what was flushed


async def test_error_of_one_metric_does_not_stop_the_others(
    buffered: tuple[BufferedCounter, BufferedGauge, BufferedHistogram],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counter, gauge, _ = buffered

    def fail() -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(counter.labels("a"), "flush", fail)
    counter.labels("a").inc()
    gauge.set(1)
    buffered_metrics.flush()
    assert value("test_level") == 1
    gauge.set(2)
    buffered_metrics.flush()
    assert value("test_level") == 2
