"""The spans of requests and jobs, and the context that their statements and messages inherit."""

from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from segmentql.tracing.setup import STATE

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

TRACE_ID: Final[ContextVar[str]] = ContextVar(
    structlog.contextvars.STRUCTLOG_KEY_PREFIX + "trace_id"
)
"""The id of the current trace. By its name, structlog adds it to the lines of a request or job."""

PROPAGATED: Final = ("traceparent", "tracestate")
"""The headers of W3C Trace Context, which are also options of job messages."""

_SERVER_ERROR: Final = 500


class ActiveSpan:
    """The span of a request or of a job, and what its statements and messages inherit."""

    __slots__ = ("_context", "_tokens", "carrier", "is_open", "span")

    def __init__(self, span: "Span", carrier: Mapping[str, str] | None) -> None:
        self.span = span
        self._context: Context | None = None
        self.is_open = True
        self.carrier = carrier
        """The context that job messages get; None for the context of this span."""
        trace_id = f"{span.get_span_context().trace_id:032x}"
        self._tokens: tuple[Token[Any], ...] = (CURRENT.set(self), TRACE_ID.set(trace_id))

    @property
    def context(self) -> "Context":
        """The context of child spans. A span that is not sampled needs none."""
        if self._context is None:
            self._context = STATE.api.set_span_in_context(self.span)
        return self._context

    def end_request(self, status: int | None) -> None:
        """End the span of a request.

        Args:
            status: the HTTP status of the response; None if there is none.
        """
        if status is not None:
            self.span.set_attribute("http.response.status_code", status)
            if status >= _SERVER_ERROR:
                set_failed(self.span, str(status))
        else:
            set_failed(self.span, "cancelled")
        self._end()

    def end_job(self, exception: BaseException | None) -> None:
        """End the span of a job that has returned, or raised an exception."""
        if exception is not None:
            set_failed(self.span, type(exception).__name__)
        self._end()

    def _end(self) -> None:
        self.is_open = False
        self.span.end()
        current, trace_id = self._tokens
        CURRENT.reset(current)
        TRACE_ID.reset(trace_id)


CURRENT: Final[ContextVar[ActiveSpan | None]] = ContextVar("segmentql_span", default=None)


def open_span() -> ActiveSpan | None:
    """Return the span of the current request or job.

    None if there is none, or if it has ended and a task of it runs on.
    """
    active = CURRENT.get()
    return active if active is not None and active.is_open else None


def leave_span() -> None:
    """Record nothing of the current task in the span that it has inherited from its creator."""
    CURRENT.set(None)


def recorded_span() -> ActiveSpan | None:
    """Return the span of the current request or job if it is open and sampled."""
    active = open_span()
    return active if active is not None and active.span.is_recording() else None


def start_request(
    method: str, route: str, headers: Mapping[bytes, bytes], request_id: str
) -> ActiveSpan:
    """Start the span of a request, in the trace of its `traceparent` if it has one.

    Args:
        method: the HTTP method.
        route: the path without values of the request.
        headers: the headers with lower-case names.
        request_id: the id of the request in logs.
    """
    carrier = (
        {
            name: headers[name.encode()].decode("latin-1")
            for name in PROPAGATED
            if name.encode() in headers
        }
        if b"traceparent" in headers
        else {}
    )
    span = STATE.tracer.start_span(
        f"{method} {route}",
        context=_parent_context(carrier),
        kind=STATE.api.SpanKind.SERVER,
        attributes={
            "http.request.method": method,
            "http.route": route,
            "url.path": route,
            "url.scheme": "http",
            "segmentql.request_id": request_id,
        },
    )
    return ActiveSpan(span, None)


class Cause(Protocol):
    """Why a request failed, as in logs."""

    @property
    def code(self) -> str: ...

    @property
    def is_fault(self) -> bool: ...


def describe_operation(
    kind: str | None, name: str, *, outcome: str, cost: int | None, cause: Cause | None
) -> None:
    """Add the operation to the span of the current request, if there is one.

    Args:
        kind: `query`, `mutation` or `subscription`; None if the document was rejected.
        name: the name of the operation in metrics and logs, of which there are few.
        outcome: the outcome in metrics and logs.
        cost: the estimated cost.
        cause: why the operation failed or was rejected, if it did.
    """
    active = recorded_span()
    if active is None:
        return
    span = active.span
    if kind is not None:
        span.update_name(f"{kind} {name}")
        span.set_attributes({"graphql.operation.type": kind, "graphql.operation.name": name})
    span.set_attribute("segmentql.outcome", outcome)
    if cost is not None:
        span.set_attribute("segmentql.cost", cost)
    if cause is not None:
        span.set_attribute("error.type", cause.code)
        if cause.is_fault:
            set_failed(span, cause.code)


def start_job(job: str, queue: str, message_id: str, options: Mapping[str, Any]) -> ActiveSpan:
    """Start the span of a job's run, in the trace of the request that enqueued it.

    A job without such a request, such as one that the scheduler found, starts a new trace.

    Args:
        job: the name of the job.
        queue: its queue.
        message_id: the id of its message.
        options: the options of its message.
    """
    carrier = {name: options[name] for name in PROPAGATED if isinstance(options.get(name), str)}
    attributes: dict[str, str | int] = {
        "messaging.system": "dramatiq",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": queue,
        "messaging.message.id": message_id,
        "segmentql.job": job,
        "segmentql.retries": options.get("retries", 0),
    }
    if isinstance(options.get("request_id"), str):
        attributes["segmentql.request_id"] = options["request_id"]
    span = STATE.tracer.start_span(
        f"process {job}",
        context=_parent_context(carrier),
        kind=STATE.api.SpanKind.CONSUMER,
        attributes=attributes,
    )
    return ActiveSpan(span, carrier or None)


def message_options() -> Mapping[str, str]:
    """Return the options with which a job message continues the current trace, if there is one.

    The messages of a job have the options of its own message. So the runs of a long chain of jobs
    are siblings and not a branch of many levels.
    """
    active = open_span()
    if active is None:
        return {}
    if active.carrier is None:
        carrier: dict[str, str] = {}
        STATE.propagator.inject(carrier, context=active.context)
        active.carrier = carrier
    return active.carrier


def _parent_context(carrier: Mapping[str, str]) -> "Context":
    context: Context = STATE.empty_context
    if carrier:
        context = STATE.propagator.extract(carrier, context=context)
    return context


def set_failed(span: "Span", error_type: str) -> None:
    """Set the status without a description, because messages of errors can have values."""
    span.set_attribute("error.type", error_type)
    span.set_status(STATE.api.StatusCode.ERROR)
