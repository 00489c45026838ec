"""`segmentql report`: writes a month of history as CSV from the database to a file."""

import asyncio
import contextlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from segmentql import errors, validators
from segmentql.adapters.database import Database
from segmentql.cli.converters import Validated
from segmentql.cli.exits import exits
from segmentql.cli.output_file import STDOUT, open_output
from segmentql.cli.settings import data_dir_option, settings_or_running
from segmentql.reports import service
from segmentql.reports.csv_export import CsvExport, count_rows
from segmentql.reports.records import ReportScope
from segmentql.settings import Settings

COPY_TIMEOUT_SECONDS: Final = 3600


def parse_month(text: str) -> tuple[int, int]:
    """Parse a month such as `2023-09` into its year and month.

    Raises:
        BadValue: the text is not a month of the years that reports have.
    """
    match = re.fullmatch(r"(\d{4})-(\d\d)", text, re.ASCII)
    if not match:
        raise errors.BadValue(f"{text!r} is not a month", "a month such as 2023-09")
    return validators.year(int(match[1])), validators.month(int(match[2]))


@click.command(epilog=exits("report"))
@click.option(
    "--month", type=Validated("YYYY-MM", parse_month), required=True, help="The month, in UTC."
)
@click.option(
    "--user", type=Validated("ID", validators.user_id), help="The user's id.  [default: all users]"
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="The file to write; - is standard output.  [default: segments-<user or all>-<month>.csv]",
)
@click.option("--with-keys", is_flag=True, help="Add a fifth column with the users' keys.")
@data_dir_option
def report(
    month: tuple[int, int],
    user: int | None,
    output: str | None,
    with_keys: bool,  # noqa: FBT001 - click passes options by name
    data_dir: Path,
) -> None:
    """Write a month of joins and leaves as CSV.

    The file appears when it is complete. No worker and no store are needed.
    """
    scope = ReportScope(*month, user, with_keys)
    if output == "":
        raise click.BadParameter("the name of the file is empty", param_hint="'-o' / '--output'")
    target = scope.file_name if output is None else output
    try:
        rows = asyncio.run(_report(settings_or_running(data_dir), scope, target))
    except errors.MutationRejected as rejected:
        raise click.ClickException(" ".join(map(_rejection_text, rejected.reasons))) from None
    except (errors.Unavailable, errors.TimedOut):
        raise click.ClickException(
            "the database does not respond in time; run `segmentql doctor` for details"
        ) from None
    if target != STDOUT:
        click.echo(f"{rows} rows in {target}", err=True)


def _rejection_text(reason: errors.RejectionReason) -> str:
    if isinstance(reason, errors.InvalidInput):
        return f"{reason.problem}; allowed: {reason.allowed}."
    if isinstance(reason, errors.UserNotFound):
        return f"User {reason.user_id} was never stored."
    raise NotImplementedError(type(reason).__name__)


async def _report(settings: Settings, scope: ReportScope, target: str) -> int:
    database = Database(settings, name="segmentql report", publish=lambda messages: None)
    try:
        async with database.read() as session:
            await service.check_scope(session, scope)
        with open_output(target) as write:
            async with database.long_read(seconds=COPY_TIMEOUT_SECONDS) as session:
                expected = await count_rows(session, scope)
                csv = CsvExport(session, scope)
                await _copy(csv, write, expected)
        return csv.rows
    finally:
        await database.dispose()


async def _copy(csv: CsvExport, write: Callable[[bytes], None], expected_rows: int) -> None:
    hidden = not sys.stderr.isatty()
    with click.progressbar(
        length=expected_rows, label="rows", show_pos=True, file=sys.stderr, hidden=hidden
    ) as bar:
        async with contextlib.aclosing(csv.chunks()) as chunks:
            async for chunk in chunks:
                write(chunk)
                bar.update(chunk.count(b"\n"))
