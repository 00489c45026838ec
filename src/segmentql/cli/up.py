"""`segmentql up`: the whole service on this machine."""

import asyncio
import contextlib
from pathlib import Path

import click

from segmentql.errors import LocalServerError, SettingsError


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=".segmentql",
    show_default=True,
    help="Where data, passwords and logs are kept between runs.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="The API's port.  [default: SEGMENTQL_PORT or 8080]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="How many processes serve the API.",
)
def up(data_dir: Path, port: int | None, workers: int) -> None:
    """Run everything on this machine: PostgreSQL, Redis, the object store, the worker, the API.

    An outside service is used instead of ours where its URL is set: SEGMENTQL_DATABASE_URL,
    SEGMENTQL_REDIS_URL, SEGMENTQL_S3_ENDPOINT_URL. Ctrl-C and SIGTERM stop everything; the data
    stay.
    """
    from segmentql.local.up import Commands, run_up  # noqa: PLC0415 - no other command needs it

    try:
        asyncio.run(run_up(data_dir, port=port, workers=workers, say=_say, commands=Commands()))
    except (LocalServerError, SettingsError) as error:
        raise click.ClickException(_printable(str(error))) from error


def _say(line: str) -> None:
    # A terminal that is gone must not keep us from stopping the children.
    with contextlib.suppress(OSError):
        click.echo(_printable(line))


def _printable(text: str) -> str:
    """The text with a path's bytes that are not UTF-8 escaped."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
