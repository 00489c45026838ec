"""`segmentql report`: a month of history as CSV, straight from the database into a file."""

import asyncio
import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from segmentql import errors, validators
from segmentql.adapters.database import Database
from segmentql.cli.exits import exits
from segmentql.cli.output import ReaderGone
from segmentql.cli.settings import data_dir_option, settings_or_running
from segmentql.reports import service
from segmentql.reports.csv_export import Csv, count_rows
from segmentql.reports.records import ReportScope
from segmentql.settings import Settings

COPY_SECONDS: Final = 3600
STDOUT: Final = "-"


class MonthType(click.ParamType[tuple[int, int]]):
    """A month like 2023-09."""

    name = "YYYY-MM"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d{4})-(\d\d)", value, re.ASCII)
        try:
            if not found:
                raise errors.BadValue(f"{value!r} is not a month", "like 2023-09")
            return validators.year(int(found[1])), validators.month(int(found[2]))
        except errors.BadValue as bad:
            self.fail(f"{bad.problem}; allowed: {bad.allowed}", param, ctx)


class UserType(click.ParamType[int]):
    """A user's number."""

    name = "ID"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        try:
            return validators.user_id(str(value))
        except errors.BadValue as bad:
            self.fail(f"{bad.problem}; allowed: {bad.allowed}", param, ctx)


@click.command(epilog=exits("report"))
@click.option("--month", type=MonthType(), required=True, help="The month, in UTC.")
@click.option("--user", type=UserType(), help="The user's id.  [default: all users]")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="The file to write; - is standard output.  [default: segments-<user or all>-<month>.csv]",
)
@data_dir_option
def report(month: tuple[int, int], user: int | None, output: str | None, data_dir: Path) -> None:
    """Write a month of joins and leaves as CSV.

    The file appears when it is complete. No worker and no store are needed.
    """
    scope = ReportScope(*month, user)
    if output == "":
        raise click.BadParameter("the name of the file is empty", param_hint="'-o' / '--output'")
    target = scope.file_name if output is None else output
    try:
        rows = asyncio.run(_report(settings_or_running(data_dir), scope, target))
    except errors.MutationRejected as rejected:
        raise click.ClickException(" ".join(map(_rejection_text, rejected.reasons))) from None
    except (errors.Unavailable, errors.TimedOut):
        raise click.ClickException(
            "the database does not answer, or not in time: see `segmentql doctor`"
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
            await service.reject_unknown(session, scope)
        with _opened(target) as write:
            async with database.long_read(seconds=COPY_SECONDS) as session:
                expected = await count_rows(session, scope)
                csv = Csv(session, scope)
                await _copy(csv, write, expected)
        return csv.rows
    finally:
        await database.dispose()


async def _copy(csv: Csv, write: Callable[[bytes], None], expected_rows: int) -> None:
    hidden = not sys.stderr.isatty()
    with click.progressbar(
        length=expected_rows, label="rows", show_pos=True, file=sys.stderr, hidden=hidden
    ) as bar:
        async with contextlib.aclosing(csv.chunks()) as chunks:
            async for chunk in chunks:
                write(chunk)
                bar.update(chunk.count(b"\n"))


@contextlib.contextmanager
def _opened(target: str) -> Iterator[Callable[[bytes], None]]:
    """Write to a file that is there under its name only once it is whole."""

    def cannot_write(error: OSError) -> Exception:
        if isinstance(error, BrokenPipeError):
            return ReaderGone()
        return click.ClickException(f"cannot write {target}: {error.strerror}")

    def write(chunk: bytes) -> None:
        try:
            file.write(chunk)
        except OSError as error:
            # Here, because further out it would be taken for a fault of the database's connection.
            raise cannot_write(error) from None

    path = Path(target).resolve()  # a link stays one
    part = path.with_name(f"{path.name}.part")
    try:
        if target == STDOUT:
            # A file of its own, for what cannot be written is to be known before the exit.
            with open(sys.stdout.fileno(), "wb", closefd=False) as file:
                yield write
        elif path.exists() and not path.is_file():  # a pipe or a device: nothing to be replaced
            with path.open("wb") as file:
                yield write
        else:
            try:
                with part.open("wb") as file:
                    yield write
                part.replace(path)
            finally:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(error) from None
