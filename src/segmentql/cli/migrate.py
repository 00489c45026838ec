"""`segmentql migrate`: brings the database's schema up to date."""

import click

from segmentql import logs
from segmentql.adapters.migrations import upgrade
from segmentql.cli.settings import settings_or_exit


@click.command()
@click.option(
    "--to", "revision", default="head", show_default=True, help="The revision to migrate to."
)
def migrate(revision: str) -> None:
    """Bring the database's schema up to date; safe to run twice, or in several places at once."""
    settings = settings_or_exit()
    logs.configure(settings)
    if settings.owner_database_url == settings.database_url:
        click.echo(
            "Note: the service will own its tables, so nothing keeps it from writing history. Set"
            " SEGMENTQL_MIGRATION_DATABASE_URL to another role's address to change that.",
            err=True,
        )
    upgrade(settings, revision)
