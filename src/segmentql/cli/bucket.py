"""`segmentql bucket`: creates the bucket."""

import asyncio
from pathlib import Path

import click

from segmentql import logs
from segmentql.adapters.storage import Storage
from segmentql.cli.exits import exits
from segmentql.cli.settings import data_dir_option, settings_or_running
from segmentql.errors import StoreFailed
from segmentql.settings import Settings


@click.command(epilog=exits("bucket"))
@data_dir_option
def bucket(data_dir: Path) -> None:
    """Create the bucket and set its lifecycle and its CORS rule.

    It is safe to run the command again. If the store does not support lifecycles or CORS rules, a
    warning says so, and the command succeeds.
    """
    settings = settings_or_running(data_dir, with_store=True)
    logs.configure(settings)
    try:
        asyncio.run(_set_up(settings))
    except StoreFailed as failed:
        raise click.ClickException(f"bucket {settings.s3_bucket}: {failed.reason}") from None


async def _set_up(settings: Settings) -> None:
    storage = Storage(settings)
    try:
        await storage.set_up()
    finally:
        await storage.close()
