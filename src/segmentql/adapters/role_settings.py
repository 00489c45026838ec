"""The service's session settings as defaults of its role, for sessions that a pooler opens.

A transaction pooler opens the sessions of PostgreSQL itself, and does not pass on the startup
parameters of its clients. Each transaction of the service sets its limits itself, see `engines`.
Statements outside a transaction, such as reads, have the defaults of the role in the database.
"""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from segmentql.adapters.connections import plain_engine, session_settings, statement_arguments
from segmentql.settings import Settings

_LOCK: Final = text("SELECT pg_advisory_xact_lock(99_040_840)")
"""Concurrent ALTER ROLE statements for the same role fail. The number is arbitrary."""

_TARGET: Final = text("SELECT quote_ident(current_user), quote_ident(current_database())")

_STORED: Final = text("""
SELECT unnest(setconfig) FROM pg_db_role_setting
WHERE setrole = (SELECT oid FROM pg_roles WHERE rolname = current_user)
    AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
""")


def role_settings(settings: Settings) -> Mapping[str, str]:
    """Return the settings that the service's role needs as its defaults behind a pooler.

    `client_min_messages` is not one of them, because only transactions need it. As a default, it
    would show debug messages to all clients of the role.
    """
    values = session_settings(settings)
    return {name: values[name] for name in values if name != "client_min_messages"}


async def store_role_settings(settings: Settings) -> list[str]:
    """Store the defaults of the service's role in its database, through the pooler.

    Every role may change its own defaults, so this needs no privilege. A session that the pooler
    has already opened keeps the former ones.

    Returns:
        The ALTER ROLE statements that were necessary, none if the defaults are up to date.

    Raises:
        DBAPIError, OSError, TimeoutError: The errors that SQLAlchemy raises.
    """
    engine = plain_engine(
        settings.database_url,
        name="segmentql migrate",
        arguments=statement_arguments(settings),
    )
    try:
        async with engine.begin() as connection:
            await connection.execute(_LOCK)
            statements = await _missing_defaults(connection, role_settings(settings))
            for statement in statements:
                await connection.exec_driver_sql(statement)
    finally:
        await engine.dispose()
    return statements


async def _missing_defaults(connection: AsyncConnection, expected: Mapping[str, str]) -> list[str]:
    role, database = (await connection.execute(_TARGET)).one()
    stored = dict(
        str(item).lower().split("=", 1) for item in (await connection.execute(_STORED)).scalars()
    )
    return [
        f"ALTER ROLE {role} IN DATABASE {database} SET {name} = '{value}'"
        for name, value in expected.items()
        if stored.get(name) != value.lower()
    ]
