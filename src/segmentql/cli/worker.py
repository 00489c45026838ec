"""`segmentql worker`: carries out jobs, against services that run elsewhere."""

import click

from segmentql import logs
from segmentql.cli.settings import settings_or_exit


@click.command()
def worker() -> None:
    """Carry out jobs until SIGTERM: ends of memberships, deletions of segments, rollouts."""
    from segmentql.worker import run  # noqa: PLC0415 - every actor with all it needs

    settings = settings_or_exit(with_store=True)
    logs.configure(settings)
    run(settings)
