"""`segmentql up`: runs the whole service on this machine."""

import asyncio
import sys
from pathlib import Path
from typing import Final

import click

from segmentql.cli.converters import AUTO, ProcessCount
from segmentql.cli.exits import exits
from segmentql.errors import LocalServerError, SettingsError

AUTO_MAXIMUM: Final = 4
"""The maximum number of API processes for `auto`, because PostgreSQL runs on the same machine.

The default is `auto` on Linux only: on other systems, a new run cannot find the processes of a
killed one (`local/orphans.py`)."""


@click.command(epilog=exits("up"))
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=".segmentql",
    show_default=True,
    help="The folder for data, passwords, ports and logs.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="The API's port.  [default: SEGMENTQL_PORT or 8080]",
)
@click.option(
    "--workers",
    metavar="N|auto",
    type=ProcessCount(auto_maximum=AUTO_MAXIMUM),
    default=AUTO if sys.platform == "linux" else "1",
    show_default=True,
    help=f"The number of API processes. auto: one per processor, within the memory, at most"
    f" {AUTO_MAXIMUM}.",
)
@click.option("--demo", is_flag=True, help="Store the demo data first, as `segmentql seed` does.")
@click.option(
    "--verbose",
    is_flag=True,
    help="Print the logs of the service instead of writing them to files.",
)
def up(data_dir: Path, port: int | None, workers: int, *, demo: bool, verbose: bool) -> None:
    """Run everything on this machine, with its data in one folder.

    This starts PostgreSQL, Redis, the object store, the worker and the API.

    To use an external service instead, set its URL: SEGMENTQL_DATABASE_URL, SEGMENTQL_REDIS_URL or
    SEGMENTQL_S3_ENDPOINT_URL. Ctrl-C and SIGTERM stop everything. The data and the ports stay the
    same for the next start. `segmentql reset` deletes the data.
    """
    # Imported here because no other command needs them.
    from segmentql.local.plan import Commands, Options  # noqa: PLC0415
    from segmentql.local.terminal import Terminal, printable  # noqa: PLC0415
    from segmentql.local.up import run_up  # noqa: PLC0415

    options = Options(port=port, workers=workers, demo=demo, verbose=verbose)
    try:
        asyncio.run(
            run_up(data_dir, options, print_line=Terminal().print_line, commands=Commands())
        )
    except (LocalServerError, SettingsError) as error:
        raise click.ClickException(printable(str(error))) from error
