"""Connections to PostgreSQL, direct or through a pooler: their settings and their errors.

This module does not import `metrics`, so that commands can use it without leaving metrics files.
"""

import ssl
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.connectors.asyncio import AsyncAdapt_Error
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from segmentql.adapters.hosts import connect_to_usable_host
from segmentql.database_url import connection_target
from segmentql.errors import SegmentQLError
from segmentql.settings import Settings

CONNECT_SECONDS: Final = 5
"""The timeout of a new connection, unless the URL has a `connect_timeout`."""

LOCK_SECONDS: Final = 5
IDLE_IN_TRANSACTION_SECONDS: Final = 15

UNNAMED_STATEMENTS: Final[Mapping[str, Any]] = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": str,  # the empty name
}
"""Prepare each statement without a name when it runs.

A transaction pooler can use another server connection for each transaction, and statements that an
earlier transaction prepared do not exist there. asyncpg parses such a statement again in the
message group that binds and executes it, so all of them reach the same server connection, also
without a transaction. `tests/adapters/test_pooled_statements.py` verifies that."""

_PREPARED_STATEMENT_CODES: Final = {"26000", "42P05"}
"""SQLSTATEs of prepared statements that are missing, or that another session has prepared."""

USE_POOLER: Final = "set SEGMENTQL_DATABASE_POOLER=transaction"


def plain_engine(url: str, *, name: str, arguments: Mapping[str, Any] | None = None) -> AsyncEngine:
    """Return an engine without a pool and without the session settings of the service.

    Args:
        url: the URL of the database.
        name: the `application_name` of its connections.
        arguments: more arguments of `asyncpg.connect`.
    """
    return make_engine(url, name=name, server_settings={}, arguments=arguments, poolclass=NullPool)


def probe_engine(settings: Settings, *, name: str, seconds: float) -> AsyncEngine:
    """Return an engine that connects as the service does, without metrics.

    Args:
        seconds: the timeout of a connection attempt and of a statement.
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
    """Return the error of the driver or the operating system that caused an error."""
    while True:
        if isinstance(error, DBAPIError) and error.orig is not None:
            error = error.orig
        elif isinstance(error, SegmentQLError | AsyncAdapt_Error) and error.__cause__ is not None:
            error = error.__cause__
        else:
            return error


def describe_error(error: BaseException) -> str:
    """Return the reason of a failed connection or statement in one line, without secrets."""
    cause = driver_error(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {cause.verify_message}"
    parameter = _rejected_parameter(cause)
    if parameter:
        return f'a pooler rejected the startup parameter "{parameter}"'
    message = str(cause).strip()
    if not message:
        return "no response in time" if isinstance(cause, TimeoutError) else type(cause).__name__
    return message.splitlines()[0]


def pooler_advice(error: BaseException) -> str | None:
    """Return the remedy if a pooler caused an error, else None."""
    cause = driver_error(error)
    sqlstate = getattr(cause, "sqlstate", None)
    is_pooler_error = _rejected_parameter(cause) or sqlstate in _PREPARED_STATEMENT_CODES
    return USE_POOLER if is_pooler_error else None


def _rejected_parameter(cause: BaseException) -> str | None:
    """Return the startup parameter that PgBouncer rejected, else None."""
    _, marker, rest = str(cause).partition("unsupported startup parameter")
    return rest.partition(":")[2].strip() if marker else None


def session_settings(settings: Settings) -> dict[str, str]:
    """Return the PostgreSQL settings for each session of the service."""
    return {
        "timezone": "UTC",
        "jit": "off",  # statements are short, so that compiling them would take longer
        "statement_timeout": str(statement_timeout_milliseconds(settings)),
        "lock_timeout": str(LOCK_SECONDS * 1000),
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_SECONDS * 1000),
        # The trigger on history reports its entries as DEBUG messages, see `history_counters`.
        "client_min_messages": "debug1",
    }


def startup_settings(settings: Settings) -> Mapping[str, str]:
    """Return the startup parameters of a connection: none behind a transaction pooler."""
    return session_settings(settings) if settings.database_pooler == "none" else {}


def statement_arguments(settings: Settings) -> Mapping[str, Any]:
    """Return the arguments of asyncpg that control prepared statements."""
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
    """Return an engine for a validated URL.

    Args:
        url: the URL of the database.
        name: the `application_name` of its connections.
        arguments: more arguments of `asyncpg.connect`.
        options: more arguments of SQLAlchemy.

    Raises:
        OSError: a certificate of the URL cannot be read.
    """
    target = connection_target(url)
    has_several_hosts = len(target.arguments.get("host", ())) > 1
    if has_several_hosts and target.arguments.get("target_session_attrs") != "prefer-standby":
        arguments = {**(arguments or {}), "async_creator_fn": connect_to_usable_host}
    return create_async_engine(
        target.url,
        hide_parameters=True,  # keeps input values out of the logs
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
