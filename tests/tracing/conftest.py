"""A collector on loopback, and applications whose spans it receives."""

from collections.abc import AsyncIterator, Iterator

import pytest

from segmentql.settings import Settings, open_telemetry_variables
from segmentql.tracing import setup
from tests.conftest import Api, Sql, serving
from tests.tracing.collector import Collector, running_collector


@pytest.fixture
def open_telemetry() -> None:
    """Skip the test if OpenTelemetry is not installed."""
    module = "opentelemetry.exporter.otlp.proto.http"
    pytest.importorskip(module, reason="the extra `tracing` is not installed")


@pytest.fixture
def collector(open_telemetry: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Run a collector, to which this process and its child processes send spans if they trace."""
    with running_collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")  # milliseconds
        yield running


@pytest.fixture
def tracing(collector: Collector) -> Iterator[None]:
    """Record the spans of the objects that the test creates."""
    setup.start(open_telemetry_variables(), service_name="tests")
    assert setup.is_on()
    yield
    setup.stop()


@pytest.fixture
async def traced_api(tracing: None, settings: Settings, sql: Sql) -> AsyncIterator[Api]:
    """Run an application that records spans, with empty tables."""
    async with serving(settings) as api:
        yield api
