"""The variables of OpenTelemetry turn tracing on, and a problem of it stops no process."""

import subprocess
import sys
import time
from collections.abc import Mapping

import pytest

from segmentql.settings import Settings, child_environment, open_telemetry_variables
from segmentql.tracing import setup
from tests.conftest import Sql, serving
from tests.tracing.collector import Collector

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
QUERY = {"query": "{ user(id: 1) { id } }"}


@pytest.mark.parametrize(
    ("variables", "state"),
    [
        ({}, "off"),
        ({"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"}, "off"),
        (ENDPOINT, "on"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, "on"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "on"),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, "off"),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, "off"),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE "}, "off"),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, "on"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, "off"),
    ],
)
def test_tracing_is_on_if_an_exporter_is_configured(
    variables: Mapping[str, str], state: str
) -> None:
    assert setup.is_requested(variables) is (state == "on")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            "OTEL_TRACES_EXPORTER must be otlp or none, but is zipkin",
        ),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf, but is grpc",
        ),
        (
            {"OTEL_BSP_MAX_QUEUE_SIZE": "0"},
            "OpenTelemetry cannot start: max_queue_size must be a positive integer.",
        ),
    ],
)
def test_wrong_variables_are_one_warning(
    changes: Mapping[str, str],
    reason: str,
    open_telemetry: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in {**ENDPOINT, **changes}.items():
        monkeypatch.setenv(name, value)
    setup.start(open_telemetry_variables(), service_name="tests")
    assert not setup.is_on()
    assert reason in _output(capsys)


def test_missing_extra_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    setup.start(ENDPOINT, service_name="tests")
    assert not setup.is_on()
    assert setup.NOT_INSTALLED in _output(capsys)


def _output(capsys: pytest.CaptureFixture[str]) -> str:
    written = capsys.readouterr()
    return written.out + written.err


@pytest.mark.slow  # imports the whole service in a new process
def test_tracing_imports_nothing_if_it_is_off() -> None:
    # redis-py imports other parts of OpenTelemetry if it is installed.
    program = """
import sys
import segmentql.app, segmentql.worker
from segmentql.tracing import setup
setup.start({"OTEL_TRACES_EXPORTER": "none"}, service_name="tests")
unused = ("opentelemetry.sdk.trace", "opentelemetry.exporter")
assert [name for name in sys.modules if name.startswith(unused)] == []
"""
    subprocess.run([sys.executable, "-c", program], env=child_environment({}), check=True)


@pytest.mark.slow  # the stop waits for the collector
@pytest.mark.parametrize("failure", ["closed", "failing", "silent"])
async def test_broken_collector_does_not_affect_requests(
    failure: str,
    collector: Collector,
    settings: Settings,
    sql: Sql,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
    if failure == "closed":
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    elif failure == "failing":
        collector.status = 503
    else:
        collector.may_respond.clear()
    setup.start(open_telemetry_variables(), service_name="tests")
    assert setup.is_on()
    async with serving(settings) as api:
        for _ in range(50):  # more spans than the queue has
            response = await api.http.post("/graphql", json=QUERY)
            assert "errors" not in response.json()
        started = time.monotonic()
    # The stop of the application waits for the collector, but not for the exporter's timeout.
    assert time.monotonic() - started < setup.STOP_SECONDS + 25


async def test_service_name_of_the_environment_has_precedence(
    collector: Collector, settings: Settings, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-environment")
    setup.start(open_telemetry_variables(), service_name="tests")
    async with serving(settings) as api:
        await api.http.post("/graphql", json=QUERY)
    # The stop of the application has sent all spans.
    assert {span.service for span in collector.spans} == {"from-environment"}
