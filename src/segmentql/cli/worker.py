"""`segmentql worker`: runs background jobs with external services."""

import os

import click

from segmentql import logs
from segmentql.cli.exits import exits
from segmentql.cli.settings import settings_or_exit
from segmentql.cli.start import check_database
from segmentql.errors import SettingsError
from segmentql.settings import require_loopback_without_auth


@click.command(epilog=exits("worker"))
def worker() -> None:
    """Run background jobs with external services, until SIGTERM.

    The jobs record expired memberships, record the leaves of deleted segments, carry out rollouts
    and generate reports.
    """
    from segmentql.worker import run  # noqa: PLC0415 - slow to import
    from segmentql.worker_http import listen  # noqa: PLC0415

    settings = settings_or_exit(with_store=True)
    try:
        if settings.worker_port:
            require_loopback_without_auth(settings)
        server_socket = listen(settings)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        where, why = f"{settings.host}:{settings.worker_port}", os.strerror(error.errno or 0)
        raise click.ClickException(f"cannot listen on {where}: {why}") from None
    logs.configure(settings, program="worker")
    check_database(settings)
    run(settings, server_socket)
