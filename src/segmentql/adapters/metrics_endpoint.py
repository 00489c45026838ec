"""The `/metrics` endpoint: its access control and its response."""

import hmac
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from prometheus_client import REGISTRY as PROCESS_REGISTRY
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from segmentql.metrics import ScrapedGauge
from segmentql.settings import Settings
from segmentql.shared_metrics import SharedCollector

Samples: TypeAlias = Mapping[tuple[str, ...], float]
"""The values of a gauge, by the values of its labels."""


def access_error(request: Request, settings: Settings) -> Response | None:
    """Return the error response if the request may not read the metrics, else None."""
    if settings.metrics_token is None:
        if settings.auth == "off":
            return None
        return PlainTextResponse(
            "Set SEGMENTQL_METRICS_TOKEN, and configure Prometheus to send it as a bearer token.\n",
            status_code=403,
        )
    given = request.headers.get("authorization", "").encode()
    if hmac.compare_digest(given, f"Bearer {settings.metrics_token}".encode()):
        return None
    return PlainTextResponse(
        "The metrics require SEGMENTQL_METRICS_TOKEN: Authorization: Bearer <token>.\n",
        status_code=401,
        headers={"www-authenticate": 'Bearer realm="segmentql metrics"'},
    )


def metrics_response(
    settings: Settings, scraped: Iterable[tuple[ScrapedGauge, Samples]] = ()
) -> Response:
    """Return all metrics in the format of Prometheus, with the gauges of this scrape."""
    parts = [_process_metrics(settings.metrics_dir), _scraped_metrics(scraped)]
    return PlainTextResponse(b"".join(parts), media_type=CONTENT_TYPE_LATEST)


def _process_metrics(folder: Path | None) -> bytes:
    if folder is None:
        return generate_latest(PROCESS_REGISTRY)
    _remove_dead_processes(folder)
    registry = CollectorRegistry()
    registry.register(SharedCollector(folder))
    return generate_latest(registry)


def _remove_dead_processes(folder: Path) -> None:
    """Remove the live gauges of dead processes. Their counters remain."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            multiprocess.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
        except PermissionError:
            pass  # the process runs as another user


def _scraped_metrics(scraped: Iterable[tuple[ScrapedGauge, Samples]]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_ScrapedCollector(list(scraped)))
    return generate_latest(registry)


class _ScrapedCollector(Collector):
    def __init__(self, scraped: list[tuple[ScrapedGauge, Samples]]) -> None:
        self._scraped = scraped

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for gauge, samples in self._scraped:
            family = GaugeMetricFamily(gauge.name, gauge.help, labels=gauge.labels)
            for labels, value in samples.items():
                family.add_metric(labels, value)
            yield family
