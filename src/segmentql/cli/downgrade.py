"""`segmentql downgrade`: undoes migrations of the database's schema."""

import asyncio

import click

from segmentql import logs
from segmentql.adapters import migrations
from segmentql.adapters.migrations import DatabaseState
from segmentql.cli.confirmation import confirm
from segmentql.cli.exits import exits
from segmentql.cli.migrations import RevisionType, migration_errors
from segmentql.cli.settings import settings_or_exit
from segmentql.errors import DowngradeRefused, SchemaTooNew
from segmentql.settings import Settings


@click.command(epilog=exits("downgrade"))
@click.argument("revision", type=RevisionType())
@click.option("--yes", is_flag=True, help="Undo the migrations without confirmation.")
def downgrade(revision: str, *, yes: bool) -> None:
    """Undo the migrations that are newer than REVISION.

    Everything in the tables and columns that they created is deleted. Stop all processes before:
    the command refuses to run while a session of the service is connected. Use the version that
    migrated the database, and then run `segmentql migrate` of the older version.
    """
    settings = settings_or_exit()
    logs.configure(settings)
    current = _current_revision(settings, revision)
    if current == revision:
        click.echo(f"nothing to undo: the database is at revision {revision}")
        return
    if not yes:
        _confirm(current, revision)
        _current_revision(settings, revision)  # a process may have started during the question
    try:
        with migration_errors(settings.owner_database_url):
            migrations.downgrade(settings, revision)
    except DowngradeRefused as error:
        reached = _state(settings).revision
        raise click.ClickException(
            f"{error}; the database is at revision {reached}, so run `segmentql migrate` before you"
            " start this version again"
        ) from None
    click.echo(
        f"the database is at revision {revision}; now run `segmentql migrate` of the older version,"
        " which grants its privileges"
    )


def _current_revision(settings: Settings, revision: str) -> str:
    """Return the database's revision, if migrations can be undone now."""
    state = _state(settings)
    if state.revision is None:
        raise click.ClickException("the database was never migrated")
    if state.revision < revision:
        raise click.ClickException(
            f"the database is at revision {state.revision}, which is older than {revision}"
        )
    if state.revision != revision and state.sessions:
        sessions = ", ".join(f"{name} ({count})" for name, count in state.sessions.items())
        raise click.ClickException(
            "stop all processes first; if a pooler then keeps connections open, close them"
            " (RECONNECT in PgBouncer's admin console). Sessions of the service's or the owner's"
            f" role: {sessions}"
        )
    return state.revision


def _state(settings: Settings) -> DatabaseState:
    try:
        with migration_errors(settings.owner_database_url):
            return asyncio.run(migrations.read_state(settings))
    except SchemaTooNew as error:
        raise click.ClickException(str(error)) from None


def _confirm(current: str, revision: str) -> None:
    confirm(
        f"Undo the migrations after {revision}, up to {current}, and delete everything in the"
        " tables and columns that they created?",
        without_terminal="nothing is undone without a confirmation",
    )
