"""Runs the migrations, in one process at a time, and then grants the service's privileges.

`segmentql migrate` passes the database URLs in `config.attributes`. The `alembic` command, which
developers run to write a migration, reads them from the settings.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

from alembic import context
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from segmentql.adapters.connections import plain_engine
from segmentql.adapters.revisions import check_not_newer
from segmentql.errors import Unavailable
from segmentql.settings import load_settings
from segmentql.tables import Base

LOCK = {"number": 0x5E6_3E47}  # an arbitrary number, the same in all processes
POLL_SECONDS = 0.1
LOCK_TIMEOUT = "5s"
GRANTS = Path(__file__).parent / "grants.sql"
STORE_OLDEST = text("""
INSERT INTO schema_compatibility (oldest_revision) VALUES (:oldest)
ON CONFLICT ("only") DO UPDATE SET oldest_revision = excluded.oldest_revision
""")


def migrate(connection: Connection, service_role: str) -> None:
    # A session-level lock, because each migration is committed separately. The wait has no limit,
    # because the holder runs the same migrations. It polls instead of blocking, because CREATE
    # INDEX CONCURRENTLY waits for every running statement, including a blocked one.
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:number)"), LOCK):
        connection.commit()
        time.sleep(POLL_SECONDS)
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    # Behind a pooler these are defaults of the service's role, which may be the owner as well.
    connection.execute(text("SET statement_timeout = 0"))
    connection.execute(text("SET idle_in_transaction_session_timeout = 0"))
    connection.commit()
    try:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            transaction_per_migration=True,
            on_version_apply=store_oldest_compatible,
            include_name=lambda name, kind, _: (
                not (kind == "table" and name is not None and name.startswith("history_"))
            ),
        )
        check_not_newer(context.get_context().get_current_revision())
        with context.begin_transaction():
            context.run_migrations()
        if context.get_context().get_current_revision() == context.get_head_revision():
            grant(connection, service_role)  # the grants name tables of the newest migration
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:number)"), LOCK)
        connection.commit()


def store_oldest_compatible(*, ctx: MigrationContext, heads: set[str], **_: object) -> None:
    """Store which versions work on the schema, in the transaction of the migration.

    After an upgrade or a downgrade, the reached revision declares it. Those before 0021 do not.
    """
    for revision in heads:
        module = context.script.get_revision(revision).module
        if hasattr(module, "oldest_compatible"):
            ctx.connection.execute(STORE_OLDEST, {"oldest": module.oldest_compatible})


def grant(connection: Connection, service_role: str) -> None:
    """Grant the service's role the privileges in `grants.sql`, unless it is the owner."""
    if service_role == connection.scalar(text("SELECT current_user")):
        return
    quoted = connection.dialect.identifier_preparer.quote(service_role)
    for statement in GRANTS.read_text().format(service=quoted).split(";\n"):
        if statement.strip():
            connection.execute(text(statement))
    connection.commit()


async def run() -> None:
    attributes = context.config.attributes
    owner_url, service_url = attributes.get("owner_url"), attributes.get("service_url")
    if owner_url is None or service_url is None:
        settings = load_settings()
        owner_url, service_url = settings.owner_database_url, settings.database_url
    engine = plain_engine(owner_url, name="segmentql migrate")
    try:
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(engine.connect())
            except (DBAPIError, OSError, TimeoutError) as error:
                raise Unavailable from error
            await connection.run_sync(migrate, make_url(service_url).username or "")
    finally:
        await engine.dispose()


asyncio.run(run())
