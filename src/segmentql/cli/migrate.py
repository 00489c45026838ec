"""`segmentql migrate`: migrates the database's schema."""

import asyncio

import click
from sqlalchemy.exc import DBAPIError

from segmentql import logs
from segmentql.adapters.connections import describe_error
from segmentql.adapters.migrations import check_newer_schema, upgrade
from segmentql.adapters.role_settings import store_role_settings
from segmentql.cli.exits import exits
from segmentql.cli.migrations import HEAD, RevisionType, migration_errors
from segmentql.cli.settings import settings_or_exit
from segmentql.cli.start import warn_if_newer
from segmentql.database_url import display_address
from segmentql.errors import SchemaMismatch, SchemaTooNew
from segmentql.settings import Settings


@click.command(epilog=exits("migrate"))
@click.option(
    "--to",
    "revision",
    type=RevisionType(HEAD),
    default=HEAD,
    show_default=True,
    help="The revision to migrate to.",
)
def migrate(revision: str) -> None:
    """Migrate the database's schema to the newest revision.

    It is safe to run the command again and to run concurrently. If a newer version has migrated the
    database, and the schema supports this version, the command succeeds and changes nothing.
    """
    settings = settings_or_exit()
    logs.configure(settings)
    owner_url = settings.owner_database_url
    if owner_url == settings.database_url:
        if settings.database_pooler == "transaction":
            raise click.ClickException(
                "migrations need one session, which a transaction pooler does not provide:"
                " set SEGMENTQL_MIGRATION_DATABASE_URL to PostgreSQL itself, without the pooler"
            )
        click.echo(
            "Note: the service will own its tables and can therefore change history. To prevent"
            " this, set SEGMENTQL_MIGRATION_DATABASE_URL to the URL of another role.",
            err=True,
        )
    try:
        with migration_errors(owner_url):
            upgrade(settings, revision)
    except SchemaTooNew:
        _check_newer_schema(settings)
        click.echo("Note: the database was not changed.", err=True)
        return
    if settings.database_pooler == "transaction":
        _store_role_settings(settings)


def _check_newer_schema(settings: Settings) -> None:
    """Exit if this version does not work on the schema, which a newer version migrated."""
    try:
        with migration_errors(settings.owner_database_url):
            warn_if_newer(asyncio.run(check_newer_schema(settings)))
    except SchemaMismatch as error:
        raise click.ClickException(str(error)) from None


def _store_role_settings(settings: Settings) -> None:
    try:
        statements = asyncio.run(store_role_settings(settings))
    except (DBAPIError, OSError, TimeoutError) as error:
        raise click.ClickException(
            "the schema is migrated, but the defaults of the service's role cannot be set through"
            f" {display_address(settings.database_url)}: {describe_error(error)}"
        ) from None
    for statement in statements:
        click.echo(statement, err=True)
    if statements:
        click.echo(
            "Note: connections that the pooler has already opened to PostgreSQL keep the former"
            " defaults. To replace them, run RECONNECT in PgBouncer's admin console.",
            err=True,
        )
