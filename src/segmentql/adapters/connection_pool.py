"""The pool of connections to PostgreSQL, which counts what is in use and what waits."""

import time
from typing import Any, Final

from sqlalchemy import Connection, Engine, event
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, PoolProxiedConnection

from segmentql import metrics

_BEGAN: Final = "segmentql.began"


class MeasuredPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's own; each process has few, told apart by their `logging_name`."""

    # What is in use is asked, not added up: where no connection can be made, SQLAlchemy gives
    # back what it never handed out.

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        name = self.logging_name
        self._used = metrics.POOL_CONNECTIONS_USED.labels(name)
        self._wait = metrics.POOL_WAIT_SECONDS.labels(name)
        metrics.POOL_CONNECTIONS_LIMIT.labels(name).set(self.size())

    def connect(self) -> PoolProxiedConnection:
        began = time.perf_counter()
        try:
            return super().connect()
        finally:
            self._wait.observe(time.perf_counter() - began)
            self._used.set(self.checkedout())

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        super()._do_return_conn(record)
        self._used.set(self.checkedout())


def time_statements(engine: Engine) -> None:
    """Measure each statement of an engine, by whether it is in a transaction."""
    read = metrics.STATEMENT_DURATION_SECONDS.labels("read")
    write = metrics.STATEMENT_DURATION_SECONDS.labels("write")

    def before(connection: Connection, *_: Any) -> None:
        connection.info[_BEGAN] = time.perf_counter()

    def after(connection: Connection, *_: Any) -> None:
        autocommits = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
        taken = time.perf_counter() - connection.info[_BEGAN]
        (read if autocommits else write).observe(taken)

    event.listen(engine, "before_cursor_execute", before)
    event.listen(engine, "after_cursor_execute", after)
