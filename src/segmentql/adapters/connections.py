"""Connections to PostgreSQL, directly or through a pooler: their settings, and their faults.

This module imports no metric: commands use it that leave none behind.
"""

import ssl
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.connectors.asyncio import AsyncAdapt_Error
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from segmentql.database_url import connection_target
from segmentql.errors import SegmentQLError
from segmentql.settings import Settings

CONNECT_SECONDS: Final = 5
"""How long a new connection may take, unless the URL has a `connect_timeout`."""

LOCK_SECONDS: Final = 5
IDLE_IN_TRANSACTION_SECONDS: Final = 15

UNNAMED_STATEMENTS: Final[Mapping[str, Any]] = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": str,  # the empty name
}
"""Prepare each statement without a name when it runs.

A transaction pooler gives each transaction another server connection, on which the statements that
an earlier transaction prepared do not exist. asyncpg sends no Sync between Parse and Bind, so the
pooler keeps both on one server connection."""

_STATEMENT_MIXED_UP: Final = {"26000", "42P05"}
"""A prepared statement does not exist, or exists already: another session prepared it."""

USE_POOLER: Final = "set SEGMENTQL_DATABASE_POOLER=transaction"


def plain_engine(url: str, *, name: str) -> AsyncEngine:
    """Make an engine without a pool and without the service's own session settings."""
    return make_engine(url, name=name, server_settings={}, poolclass=NullPool)


def probe_engine(settings: Settings, *, name: str, seconds: float) -> AsyncEngine:
    """Make an engine that connects as the service does, and gives up after `seconds` at each step.

    Its statements are not measured.
    """
    return make_engine(
        settings.database_url,
        name=name,
        server_settings=startup_settings(settings),
        connect_seconds=seconds,
        arguments={**statement_arguments(settings), "command_timeout": seconds},
        poolclass=NullPool,
    )


def statement_timeout_milliseconds(settings: Settings) -> int:
    """Return the time limit of a statement."""
    return int(settings.statement_timeout_seconds * 1000)


def driver_error(error: BaseException) -> BaseException:
    """Return the fault below SQLAlchemy's errors and ours: the driver's, or the system's."""
    while True:
        if isinstance(error, DBAPIError) and error.orig is not None:
            error = error.orig
        elif isinstance(error, SegmentQLError | AsyncAdapt_Error) and error.__cause__ is not None:
            error = error.__cause__
        else:
            return error


def connection_fault(error: BaseException) -> str:
    """Say in one line, without a secret, why a connection or a statement failed."""
    cause = driver_error(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the server's certificate is not accepted: {cause.verify_message}"
    parameter = _refused_parameter(cause)
    if parameter:
        return f'a pooler refused the startup parameter "{parameter}"'
    message = str(cause).strip()
    if not message:
        return "no answer in time" if isinstance(cause, TimeoutError) else type(cause).__name__
    return message.splitlines()[0]


def pooler_advice(error: BaseException) -> str | None:
    """Say what to do if a pooler is the reason of a fault."""
    cause = driver_error(error)
    sqlstate = getattr(cause, "sqlstate", None)
    is_by_pooler = _refused_parameter(cause) or sqlstate in _STATEMENT_MIXED_UP
    return USE_POOLER if is_by_pooler else None


def _refused_parameter(cause: BaseException) -> str | None:
    """Return the startup parameter that PgBouncer refused."""
    _, found, rest = str(cause).partition("unsupported startup parameter")
    return rest.partition(":")[2].strip() if found else None


def session_settings(settings: Settings) -> dict[str, str]:
    """Return PostgreSQL's settings for each session of the service."""
    return {
        "timezone": "UTC",
        "jit": "off",  # every statement is short; compiling one would cost more
        "statement_timeout": str(statement_timeout_milliseconds(settings)),
        "lock_timeout": str(LOCK_SECONDS * 1000),
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_SECONDS * 1000),
        # The trigger on history reports what it recorded as a DEBUG message: see `recorded`.
        "client_min_messages": "debug1",
    }


def startup_settings(settings: Settings) -> Mapping[str, str]:
    """Return what a new connection sets for its whole life; none behind a transaction pooler."""
    return session_settings(settings) if settings.database_pooler == "none" else {}


def statement_arguments(settings: Settings) -> Mapping[str, Any]:
    """Return asyncpg's arguments for how statements are prepared."""
    return {} if settings.database_pooler == "none" else UNNAMED_STATEMENTS


def make_engine(
    url: str,
    *,
    name: str,
    server_settings: Mapping[str, str],
    connect_seconds: float | None = None,
    arguments: Mapping[str, Any] | None = None,
    **options: Any,
) -> AsyncEngine:
    """Make an engine of a checked URL; `arguments` are asyncpg's, `options` SQLAlchemy's.

    Raises:
        OSError: a certificate of the URL cannot be read.
    """
    target = connection_target(url)
    return create_async_engine(
        target.url,
        hide_parameters=True,  # what a caller sent stays out of the logs
        connect_args={
            **target.arguments,
            "timeout": connect_seconds or target.connect_seconds or CONNECT_SECONDS,
            "server_settings": {
                **server_settings,
                "application_name": target.application_name or name,
            },
            **(arguments or {}),
        },
        **options,
    )
