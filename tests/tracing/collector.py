"""A collector of traces on loopback, which receives OTLP over HTTP as a real one does."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.conftest import until


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as the collector received it. Ids are hexadecimal."""

    name: str
    service: str
    trace_id: str
    id: str
    parent_id: str
    kind: int
    attributes: Mapping[str, Any]
    links: tuple[str, ...]
    """The ids of the linked spans."""
    is_error: bool
    duration_ns: int


class Collector:
    """The received spans and the bodies of requests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.status = 200
        """The status of responses."""
        self.may_respond = threading.Event()
        self.may_respond.set()
        self.bodies: list[bytes] = []
        self._lock = threading.Lock()

    def receive(self, body: bytes) -> None:
        with self._lock:
            self.bodies.append(body)
        self.may_respond.wait()

    @property
    def spans(self) -> list[ReceivedSpan]:
        """Return all spans, in the order of their arrival."""
        with self._lock:
            bodies = list(self.bodies)
        return [span for body in bodies for span in _spans(body)]

    def named(self, name: str) -> list[ReceivedSpan]:
        return [span for span in self.spans if span.name == name]

    async def wait_for(self, name: str, *, count: int = 1) -> list[ReceivedSpan]:
        """Wait until `count` spans of a name have arrived, and return them."""

        async def have_arrived() -> bool:
            return len(self.named(name)) >= count

        await until(have_arrived)
        return self.named(name)

    def children(self, parent: ReceivedSpan) -> list[ReceivedSpan]:
        return [
            span
            for span in self.spans
            if span.parent_id == parent.id and span.trace_id == parent.trace_id
        ]


def _spans(body: bytes) -> Iterator[ReceivedSpan]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415
        ExportTraceServiceRequest,  # of an extra, without which the tests are skipped
    )

    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = _values(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    name=span.name,
                    service=service,
                    trace_id=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    kind=span.kind,
                    attributes=_values(span.attributes),
                    links=tuple(link.span_id.hex() for link in span.links),
                    is_error=span.status.code == span.status.STATUS_CODE_ERROR,
                    duration_ns=span.end_time_unix_nano - span.start_time_unix_nano,
                )


def _values(attributes: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}


@contextmanager
def running_collector() -> Iterator[Collector]:
    """Run a collector on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.receive(body)
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Write no line for each request."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield collector
        finally:
            collector.may_respond.set()
            server.shutdown()
            thread.join()
