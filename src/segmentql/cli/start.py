"""The check of the database's schema at the start of `serve` and `worker`, and its warning."""

import asyncio
import ssl

import click
import structlog
from sqlalchemy.exc import DBAPIError

from segmentql.adapters.connections import (
    CONNECT_SECONDS,
    describe_error,
    driver_error,
    pooler_advice,
    probe_engine,
)
from segmentql.adapters.revisions import check_schema
from segmentql.database_url import display_address
from segmentql.errors import SchemaMismatch
from segmentql.settings import Settings

log = structlog.get_logger(__name__)

NAME = "segmentql start"
_PERMANENT_ERROR_CLASSES = ("28", "3D", "42")
"""SQLSTATE classes: the login, the database name or the permission is wrong."""


def check_database(settings: Settings) -> None:
    """Exit if the service can never work with this database; only warn if it is unreachable.

    Raises:
        click.ClickException: the schema does not match this version, or the database rejects the
            service for a permanent reason.
    """
    try:
        warn_if_newer(asyncio.run(_check(settings)))
    except SchemaMismatch as error:
        raise click.ClickException(str(error)) from None
    except (DBAPIError, OSError, TimeoutError) as error:
        where, fault = display_address(settings.database_url), describe_error(error)
        advice = pooler_advice(error)
        if advice:
            raise click.ClickException(f"{where}: {fault}; {advice}") from None
        if _is_permanent(error):
            raise click.ClickException(f"cannot connect to {where}: {fault}") from None
        log.warning("database_away_at_start", database=where, reason=fault)


def warn_if_newer(newer: str | None) -> None:
    """Log a warning if the schema is newer than this version.

    Args:
        newer: what `check_schema` returned.
    """
    if newer:
        log.warning("database_is_newer", reason=f"it is at {newer}; update SegmentQL soon")


async def _check(settings: Settings) -> str | None:
    engine = probe_engine(settings, name=NAME, seconds=CONNECT_SECONDS)
    try:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            return await check_schema(connection)
    finally:
        await engine.dispose()


def _is_permanent(error: BaseException) -> bool:
    cause = driver_error(error)
    sqlstate = getattr(cause, "sqlstate", None) or ""
    return isinstance(cause, ssl.SSLError | FileNotFoundError) or sqlstate.startswith(
        _PERMANENT_ERROR_CLASSES
    )
