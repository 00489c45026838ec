"""The connection pool with its metrics, and the measurement of statements."""

import time
from typing import Any, Final

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, PoolProxiedConnection

from segmentql import metrics
from segmentql.tracing.calls import now_ns, record_statement

_STARTED: Final = "segmentql.started"
_SPAN: Final = "segmentql.span"


class MeasuredPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's pool with metrics. The `logging_name` is the label of the pool."""

    # The number of used connections is read from the pool and not counted here, because SQLAlchemy
    # also returns connections that it could not open.

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        name = self.logging_name
        self._used = metrics.POOL_CONNECTIONS_USED.labels(name)
        self._wait = metrics.POOL_WAIT_SECONDS.labels(name)
        metrics.POOL_CONNECTIONS_LIMIT.labels(name).set(self.size())

    def connect(self) -> PoolProxiedConnection:
        started = time.perf_counter()
        try:
            return super().connect()
        finally:
            self._wait.observe(time.perf_counter() - started)
            self._used.set(self.checkedout())

    def connect_if_idle(self) -> PoolProxiedConnection | None:
        """Return an idle connection, or None if only `connect` in a greenlet can return one."""
        if not self.checkedin():
            return None
        record: Any = self._pool.get_nowait()
        is_usable = (
            not record._is_hard_or_soft_invalidated() and not record.driver_connection.is_closed()
        )
        self._pool.put_nowait(record)
        return self.connect() if is_usable else None

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        super()._do_return_conn(record)
        self._used.set(self.checkedout())


def time_statements(engine: Engine) -> None:
    """Measure the statements of an engine. Statements in transactions count as writes."""
    read = metrics.STATEMENT_DURATION_SECONDS.labels("read")
    write = metrics.STATEMENT_DURATION_SECONDS.labels("write")

    def before(connection: Connection, *_: Any) -> None:
        connection.info[_STARTED] = time.perf_counter()

    def after(connection: Connection, *_: Any) -> None:
        is_autocommit = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
        duration = time.perf_counter() - connection.info[_STARTED]
        (read if is_autocommit else write).observe(duration)

    event.listen(engine, "before_cursor_execute", before)
    event.listen(engine, "after_cursor_execute", after)


def trace_statements(engine: Engine) -> None:
    """Record a span for each statement of an engine, if it belongs to a request or a job."""
    database = engine.url.database or ""

    def before(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        connection.info[_SPAN] = now_ns(), statement

    def after(connection: Connection, *_: Any) -> None:
        started_ns, statement = connection.info.pop(_SPAN)
        record_statement(statement, started_ns, database)

    def failed(context: ExceptionContext) -> None:
        # Errors of connecting and of commits have no statement that has started.
        connection = context.connection
        if connection is not None and not connection.closed and _SPAN in connection.info:
            started_ns, statement = connection.info.pop(_SPAN)
            record_statement(statement, started_ns, database, context.original_exception)

    event.listen(engine, "before_cursor_execute", before)
    event.listen(engine, "after_cursor_execute", after)
    event.listen(engine, "handle_error", failed)
