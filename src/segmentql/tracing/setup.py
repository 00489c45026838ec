"""The tracer of the process: when it starts, what it imports, and how it stops."""

import threading
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import structlog

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

log = structlog.get_logger(__name__)

STOP_SECONDS: Final = 3
"""How long unsent spans may delay the end of the process."""

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"

NOT_INSTALLED: Final = (
    "OpenTelemetry is not installed: install segmentql[tracing], or set OTEL_TRACES_EXPORTER=none"
)


class TracerState:
    """The tracer of the process and the parts of OpenTelemetry that spans need."""

    is_on = False
    provider: Any = None
    tracer: Any = None
    api: Any = None
    """The module `opentelemetry.trace`."""
    propagator: Any = None
    """The reader and writer of `traceparent` and `tracestate`."""
    empty_context: Any = None


STATE: Final = TracerState()


def is_on() -> bool:
    """Return whether this process records spans. Objects ask for it when they are created."""
    return STATE.is_on


def is_requested(variables: Mapping[str, str]) -> bool:
    """Return whether the variables ask for traces.

    They do if `OTEL_TRACES_EXPORTER` is set and is not `none`, or if it is not set and an endpoint
    is. `OTEL_SDK_DISABLED=true` turns everything off.
    """
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = variables.get("OTEL_TRACES_EXPORTER", "").strip()
    return exporter != "none" if exporter else any(variables.get(name) for name in _ENDPOINTS)


def start(variables: Mapping[str, str], *, service_name: str) -> None:
    """Start tracing if the variables ask for it.

    A problem is one line of the log, and the process runs without traces.

    Args:
        variables: the variables with OTEL_ names. OpenTelemetry reads them from the environment.
        service_name: the name of the service if the variables have none.
    """
    if not is_requested(variables):
        return
    reason = _unsupported(variables)
    if reason is None:
        try:
            _start(service_name)
        except ImportError:
            reason = NOT_INSTALLED
        except Exception as error:  # noqa: BLE001 - a wrong variable must not stop the service
            reason = f"OpenTelemetry cannot start: {error}"
    if reason is None:
        log.info("tracing_started")
    else:
        log.warning("tracing_not_started", reason=reason)


def _unsupported(variables: Mapping[str, str]) -> str | None:
    """Return what the variables ask for and the service does not support, or None."""
    exporter = variables.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter not in {"", "otlp"}:
        return f"OTEL_TRACES_EXPORTER must be otlp or none, but is {exporter}"
    for name in _PROTOCOLS:
        if protocol := variables.get(name):
            if protocol != _PROTOCOL:
                return f"{name} must be {_PROTOCOL}, but is {protocol}"
            break
    return None


def _start(service_name: str) -> None:
    from opentelemetry import trace  # noqa: PLC0415 - an extra, and slow to import
    from opentelemetry.context import Context  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
        TraceContextTextMapPropagator,
    )

    package_version = version("segmentql")
    resource = _with_defaults(
        Resource.create(), Resource({"service.name": service_name}), package_version
    )
    # Each process stops it itself, see `stop`.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    STATE.api = trace
    STATE.propagator = TraceContextTextMapPropagator()
    STATE.empty_context = Context()
    STATE.provider = provider
    STATE.tracer = provider.get_tracer("segmentql", package_version)
    STATE.is_on = True


def _with_defaults(found: "Resource", default: "Resource", package_version: str) -> "Resource":
    """Return the resource of the environment, with a name and a version if it has none."""
    if str(found.attributes.get("service.name", "")).startswith("unknown_service"):
        found = found.merge(default)
    if not found.attributes.get("service.version"):
        found = found.merge(type(found)({"service.version": package_version}))
    return found


def stop() -> None:
    """Send the waiting spans for up to `STOP_SECONDS`, and stop tracing."""
    if STATE.is_on:
        STATE.is_on = False
        # A daemon, so that the process ends even if the collector does not respond.
        thread = threading.Thread(target=STATE.provider.shutdown, daemon=True, name="tracing stop")
        thread.start()
        thread.join(STOP_SECONDS)
