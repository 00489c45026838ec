"""`segmentql seed`: stores demo data."""

import asyncio
from pathlib import Path

import click

from segmentql import demo
from segmentql.adapters.connections import describe_error
from segmentql.adapters.database import Database
from segmentql.cli.exits import exits
from segmentql.cli.settings import data_dir_option, settings_or_running
from segmentql.database_url import display_address
from segmentql.errors import TimedOut, Unavailable
from segmentql.settings import Settings


@click.command(epilog=exits("seed"))
@data_dir_option
def seed(data_dir: Path) -> None:
    """Store demo data: users, segments, a year of history.

    The data are the same every time: 5000 users and five segments. It is safe to run the command
    again.
    """
    settings = settings_or_running(data_dir)
    try:
        seeded = asyncio.run(_seed(settings))
    except (Unavailable, TimedOut) as error:
        where = display_address(settings.database_url)
        raise click.ClickException(
            f"{where}: {describe_error(error)}; run `segmentql doctor` for details"
        ) from None
    if seeded.segments or seeded.users:
        click.echo(f"stored {seeded.users} users, {seeded.segments} segments, {seeded.joins} joins")
    else:
        click.echo("the demo data are already stored; nothing changed")


async def _seed(settings: Settings) -> demo.SeedCounts:
    # Some statements take long.
    seed_settings = settings.model_copy(update={"statement_timeout_seconds": 300})
    database = Database(seed_settings, name="segmentql seed", publish=lambda messages: None)
    try:
        return await database.transaction(demo.seed)
    finally:
        await database.dispose()
