"""`segmentql reset`: deletes a data folder."""

import asyncio
from pathlib import Path

import click

from segmentql.cli.confirmation import confirm
from segmentql.cli.exits import exits
from segmentql.errors import LocalServerError
from segmentql.local.reset import delete_data_folder, find_data_folders, find_running_pid


@click.command(epilog=exits("reset"))
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=".segmentql",
    show_default=True,
    help="The data folder to delete.",
)
@click.option("--yes", is_flag=True, help="Delete without confirmation.")
def reset(data_dir: Path, *, yes: bool) -> None:
    """Stop `segmentql up` and delete its data folder.

    The folder holds the database, the reports, the passwords and the logs. Only files that
    SegmentQL created are deleted. External services keep their data.
    """
    try:
        folders = find_data_folders(data_dir)
        if not folders:
            click.echo(f"nothing to delete: {data_dir.resolve()} does not exist")
            return
        for folder in folders:
            if not yes:
                _confirm(folder)
            asyncio.run(delete_data_folder(folder, click.echo))
    except LocalServerError as error:
        raise click.ClickException(str(error)) from error


def _confirm(folder: Path) -> None:
    pid = find_running_pid(folder)
    running = f" `segmentql up` (pid {pid}) is stopped first." if pid else ""
    confirm(
        f"Delete {folder} with its database, jobs, reports, passwords and logs?{running}",
        without_terminal=f"{folder} is not deleted without a confirmation",
    )
