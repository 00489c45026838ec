"""The engines of the service, with a pool and metrics."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_only

from segmentql.adapters.connection_pool import MeasuredPool, time_statements, trace_statements
from segmentql.adapters.connections import (
    make_engine,
    session_settings,
    startup_settings,
    statement_arguments,
)
from segmentql.adapters.database_errors import READ_ONLY_CODE
from segmentql.adapters.history_counters import HistoryCommits, count_history
from segmentql.settings import Settings
from segmentql.tracing import setup

POOL_WAIT_SECONDS: Final = 15


def service_engine(
    url: str,
    settings: Settings,
    name: str,
    *,
    history_commits: HistoryCommits,
    is_pooled: bool = True,
) -> AsyncEngine:
    """Return an engine with the service's session settings, timeouts and metrics."""
    pool: dict[str, Any] = (
        {
            "poolclass": MeasuredPool,
            "pool_logging_name": name,
            "pool_size": settings.database_pool_size,
            "max_overflow": 0,
            "pool_timeout": POOL_WAIT_SECONDS,
            "pool_use_lifo": True,
        }
        if is_pooled
        else {"poolclass": NullPool}
    )
    engine = make_engine(
        url,
        name=name,
        server_settings=startup_settings(settings),
        arguments={
            **statement_arguments(settings),
            # Longer than the server's timeout, so it applies only if the server does not respond,
            # or to reads through a pooler if the role has no statement_timeout (`role_settings`).
            "command_timeout": settings.statement_timeout_seconds + 2,
        },
        skip_autocommit_rollback=True,
        **pool,
    )
    if settings.database_pooler == "transaction":
        _set_in_transactions(engine, session_settings(settings))
    count_history(engine.sync_engine, history_commits)
    time_statements(engine.sync_engine)
    if setup.is_on():
        trace_statements(engine.sync_engine)
    event.listen(engine.sync_engine, "handle_error", _disconnect_from_read_only_server)
    return engine


def _set_in_transactions(engine: AsyncEngine, settings: Mapping[str, str]) -> None:
    """Set the session settings in each transaction, which costs one more round trip.

    The driver sends the statements together and does not prepare them.
    """
    statements = ";".join(f"SET LOCAL {name} = '{value}'" for name, value in settings.items())

    async def begin(adapted: Any) -> None:
        await adapted._start_transaction()
        try:
            await adapted.driver_connection.execute(statements)
        except Exception as error:  # noqa: BLE001 - raises it as SQLAlchemy does
            adapted._handle_exception(error)

    def set_locally(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            adapted: Any = connection.connection.dbapi_connection
            await_only(begin(adapted))

    event.listen(engine.sync_engine, "begin", set_locally)


def _disconnect_from_read_only_server(context: ExceptionContext) -> None:
    """Close the pool's connections if the server is read-only, because it is no primary any more.

    New connections then go to the host that meets the URL's `target_session_attrs`.
    """
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY_CODE:
        context.is_disconnect = True
