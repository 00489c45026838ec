"""Checks of the database that `serve` and `worker` make before they start."""

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


def check_database(settings: Settings) -> bool:
    """Exit if the service can never work with this database; only warn if it is unreachable.

    Returns:
        Whether the database is reachable.

    Raises:
        click.ClickException: the schema does not match this version, or the database rejects the
            service for a permanent reason.
    """
    try:
        asyncio.run(_check(settings))
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
        return False
    return True


async def _check(settings: Settings) -> None:
    engine = probe_engine(settings, name=NAME, seconds=CONNECT_SECONDS)
    try:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            newer = await check_schema(connection)
    finally:
        await engine.dispose()
    if newer:
        log.warning("database_is_newer", reason=f"it is at {newer}; update SegmentQL soon")


def _is_permanent(error: BaseException) -> bool:
    cause = driver_error(error)
    sqlstate = getattr(cause, "sqlstate", None) or ""
    return isinstance(cause, ssl.SSLError | FileNotFoundError) or sqlstate.startswith(
        _PERMANENT_ERROR_CLASSES
    )
