"""`segmentql seed`: demo data."""

import asyncio
from pathlib import Path

import click

from segmentql import demo
from segmentql.adapters.database import Database
from segmentql.cli.settings import data_dir_option, settings_or_running
from segmentql.settings import Settings


@click.command()
@data_dir_option
def seed(data_dir: Path) -> None:
    """Store demo data: 5000 users, five segments, a year of history. Safe to repeat."""
    seeded = asyncio.run(_seed(settings_or_running(data_dir)))
    if seeded.segments or seeded.users:
        click.echo(f"stored {seeded.users} users, {seeded.segments} segments, {seeded.joins} joins")
    else:
        click.echo("all of it is there already; nothing changed")


async def _seed(settings: Settings) -> demo.Seeded:
    # One long statement or two are in it, and nobody waits for them.
    patient = settings.model_copy(update={"statement_timeout_seconds": 300})
    database = Database(patient, name="segmentql seed", deliver=lambda messages: None)
    try:
        return await database.transaction(demo.seed)
    finally:
        await database.dispose()
