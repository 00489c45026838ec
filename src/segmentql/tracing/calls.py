"""The spans of statements and of calls to the object store, which are recorded at their end."""

import time
from collections.abc import Sequence
from contextvars import ContextVar
from functools import lru_cache
from typing import Final

from segmentql.tracing.active import CURRENT, ActiveSpan, recorded_span, set_failed
from segmentql.tracing.setup import STATE

MAX_LINKS: Final = 32
"""The maximum number of links of a statement to the requests that share it."""

MAX_STATEMENT_CHARACTERS: Final = 1_000
MAX_STATEMENTS: Final = 1_000
"""The number of statements whose attributes are cached."""

now_ns: Final = time.time_ns
"""Returns the nanoseconds since 1970 in UTC, in which OpenTelemetry measures spans."""


class BatchSpans:
    """The spans of the requests that wait for the next statement of a loader."""

    def __init__(self, loader: str) -> None:
        self._loader = loader
        self._waiting: dict[ActiveSpan, None] = {}

    def add_current(self) -> None:
        """Add the span of the current request, if it has one that is recorded."""
        active = recorded_span()
        if active is not None and len(self._waiting) <= MAX_LINKS:
            self._waiting[active] = None

    def enter(self, keys: int, *, is_last: bool) -> None:
        """Make the statement of the current task the child of the first span, linked to the others.

        Args:
            keys: the number of keys of the statement.
            is_last: whether no key waits for another statement.
        """
        spans = list(self._waiting)
        CURRENT.set(spans[0] if spans else None)
        _BATCH.set(_Batch(self._loader, keys, spans[1:]))
        if is_last:
            self._waiting = {}


class _Batch:
    """A batch of a loader whose statement has not been sent."""

    __slots__ = ("keys", "linked", "loader")

    def __init__(self, loader: str, keys: int, linked: Sequence[ActiveSpan]) -> None:
        self.loader = loader
        self.keys = keys
        self.linked = linked


_BATCH: Final[ContextVar[_Batch | None]] = ContextVar("segmentql_batch", default=None)


def record_statement(
    sql: str, started_ns: int, database: str, error: BaseException | None = None
) -> None:
    """Record a statement that has ended, if it belongs to a request or a job.

    Args:
        sql: the text with its parameters.
        started_ns: the start in nanoseconds since 1970 in UTC.
        database: the name of the database.
        error: the error, if it failed.
    """
    active = recorded_span()
    if active is None:
        return
    operation, text = _describe_statement(sql)
    batch = _BATCH.get()
    attributes: dict[str, str | int] = {
        "db.system.name": "postgresql",
        "db.namespace": database,
        "db.operation.name": operation,
        "db.query.text": text,
    }
    links = []
    if batch is not None:
        attributes["segmentql.loader"] = batch.loader
        attributes["segmentql.batch.keys"] = batch.keys
        links = [STATE.api.Link(other.span.get_span_context()) for other in batch.linked]
    span = STATE.tracer.start_span(
        operation if batch is None else f"{operation} {batch.loader}",
        context=active.context,
        kind=STATE.api.SpanKind.CLIENT,
        attributes=attributes,
        links=links,
        start_time=started_ns,
    )
    if error is not None:
        code = getattr(error, "sqlstate", None)
        if code:
            span.set_attribute("db.response.status_code", code)
        set_failed(span, code or type(error).__name__)
    span.end()


def record_store_call(
    operation: str, bucket: str, started_ns: int, status: int | None, error: str | None
) -> None:
    """Record a call to the object store that has ended, if it belongs to a request or a job.

    Args:
        operation: the name of the operation in S3's API.
        bucket: the bucket. Keys of files are not recorded.
        started_ns: the start in nanoseconds since 1970 in UTC.
        status: the HTTP status, if there was a response.
        error: the code or the type of the error, if the call failed.
    """
    active = recorded_span()
    if active is None:
        return
    span = STATE.tracer.start_span(
        f"S3.{operation}",
        context=active.context,
        kind=STATE.api.SpanKind.CLIENT,
        attributes={
            "rpc.system": "aws-api",
            "rpc.service": "S3",
            "rpc.method": operation,
            "aws.s3.bucket": bucket,
        },
        start_time=started_ns,
    )
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if error is not None:
        set_failed(span, error)
    span.end()


@lru_cache(MAX_STATEMENTS)
def _describe_statement(sql: str) -> tuple[str, str]:
    """Return the first keyword of a statement, and its text on one line."""
    text = " ".join(sql.split())
    return text.partition(" ")[0].upper(), text[:MAX_STATEMENT_CHARACTERS]
