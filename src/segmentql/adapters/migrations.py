"""Runs the migrations of `alembic/`, from a checkout or from inside the installed package."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from segmentql.adapters.connections import plain_engine
from segmentql.adapters.revisions import (
    check_not_newer,
    check_schema,
    current_revision,
    scripts_folder,
)
from segmentql.errors import DowngradeRefused, Unavailable
from segmentql.settings import Settings

_SESSIONS: Final = text("""
SELECT coalesce(nullif(application_name, ''), 'unnamed') AS name, count(*) AS sessions
FROM pg_stat_activity
WHERE datname = current_database() AND usename IN (current_user, :service_role)
    AND pid <> pg_backend_pid()
GROUP BY 1 ORDER BY 1
""")


@dataclass(frozen=True)
class DatabaseState:
    """The revision of the database, and its open sessions."""

    revision: str | None
    """None if the database was never migrated."""
    sessions: Mapping[str, int]
    """The other sessions of the service's and the owner's role, by name. A session without an
    `application_name` is "unnamed"."""


def upgrade(settings: Settings, revision: str = "head") -> None:
    """Upgrade the database to a revision. Must not be called in a running event loop.

    Raises:
        SchemaTooNew: this version does not know the database's revision.
        Unavailable: the database is unreachable.
    """
    command.upgrade(_config(settings), revision)


def downgrade(settings: Settings, revision: str) -> None:
    """Downgrade the database to a revision. Must not be called in a running event loop.

    Raises:
        DowngradeRefused: a migration cannot be undone. Newer ones were undone.
        SchemaTooNew: this version does not know the database's revision.
        Unavailable: the database is unreachable.
    """
    try:
        command.downgrade(_config(settings), revision)
    except CommandError as error:
        raise DowngradeRefused(str(error)) from error


async def read_state(settings: Settings) -> DatabaseState:
    """Read the state of the database as its owner.

    Raises:
        SchemaTooNew: this version does not know the database's revision.
        Unavailable: the database is unreachable.
    """
    service = {"service_role": make_url(settings.database_url).username}
    async with _connect_as_owner(settings, name="segmentql downgrade") as connection:
        revision = await current_revision(connection)
        check_not_newer(revision)
        rows = (await connection.execute(_SESSIONS, service)).all()
        return DatabaseState(revision, {row.name: row.sessions for row in rows})


async def check_newer_schema(settings: Settings) -> str | None:
    """Check as the owner that this version works on the schema, which a newer version migrated.

    Returns:
        What `check_schema` returns.

    Raises:
        SchemaMismatch: this version does not work on the schema.
        Unavailable: the database is unreachable.
    """
    async with _connect_as_owner(settings, name="segmentql migrate") as connection:
        return await check_schema(connection)


@asynccontextmanager
async def _connect_as_owner(settings: Settings, *, name: str) -> AsyncIterator[AsyncConnection]:
    engine = plain_engine(settings.owner_database_url, name=name)
    try:
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(engine.connect())
            except (DBAPIError, OSError, TimeoutError) as error:
                raise Unavailable from error
            yield connection
    finally:
        await engine.dispose()


def _scripts() -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts_folder()).replace("%", "%%"))
    return config


def _config(settings: Settings) -> Config:
    config = _scripts()
    config.attributes["owner_url"] = settings.owner_database_url
    config.attributes["service_url"] = settings.database_url
    return config
