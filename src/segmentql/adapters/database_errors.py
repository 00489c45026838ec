"""Translates errors of SQLAlchemy and asyncpg into the domain errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from segmentql.adapters.connections import driver_error
from segmentql.errors import TimedOut, Unavailable, Unresponsive

# https://www.postgresql.org/docs/18/errcodes-appendix.html
CONFLICT_CODES: Final = {"40001", "40P01"}
"""Serialization failures and deadlocks, after which a transaction is retried."""

TIMEOUT_CODES: Final = {"55P03", "57014"}
"""The SQLSTATEs of `lock_not_available` and `query_canceled`."""

UNAVAILABLE_CLASSES: Final = ("08", "28", "3D", "53", "57", "58")
"""Connection exceptions, rejected logins or databases, insufficient resources, operator
intervention and system errors."""

READ_ONLY_CODE: Final = "25006"
"""The SQLSTATE of `read_only_sql_transaction`: the server is a standby or is set read-only."""


def sqlstate(error: DBAPIError) -> str | None:
    """Return PostgreSQL's error code, or None if the error did not come from the server."""
    return getattr(error.orig, "sqlstate", None)


@contextmanager
def translate_database_errors() -> Iterator[None]:
    """Raise `Unavailable` or `TimedOut` for errors of the environment; others pass unchanged."""
    try:
        yield
    except DBAPIError as error:
        if sqlstate(error) in TIMEOUT_CODES:
            raise TimedOut from error
        if is_unavailable(error):
            raise Unavailable from error
        raise
    except (PoolTimeoutError, TimeoutError) as error:
        # A timeout of the client. It is longer than the server's, so the server does not respond.
        raise Unresponsive from error
    except OSError as error:
        raise Unavailable from error


def is_unavailable(error: BaseException) -> bool:
    """Return whether an error means that the database cannot be used now."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, OSError) and not isinstance(error, TimeoutError)
    code = sqlstate(error)
    if code is None:
        return error.connection_invalidated or isinstance(
            # No host of the URL matches its target_session_attrs.
            driver_error(error),
            asyncpg.TargetServerAttributeNotMatched,
        )
    return code == READ_ONLY_CODE or code.startswith(UNAVAILABLE_CLASSES)
