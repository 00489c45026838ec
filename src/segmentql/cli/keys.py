"""`segmentql keys`: makes, lists and revokes API keys, straight in the database."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from sqlalchemy import Row

from segmentql import errors, values
from segmentql.adapters.database import Database
from segmentql.cli.exits import exits
from segmentql.cli.settings import data_dir_option, settings_or_running
from segmentql.keys import service
from segmentql.settings import Settings
from segmentql.tables import Role

T = TypeVar("T")

PAGE_ROWS: Final = 500
TITLES: Final = ("ID", "NAME", "ROLE", "CREATED", "LAST USED", "REVOKED")
NEVER: Final = "-"


class NameType(click.ParamType[str]):
    """What a key is called."""

    name = "NAME"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        try:
            return values.name(str(value))
        except errors.BadValue as bad:
            self.fail(f"{bad.problem}; allowed: {bad.allowed}", param, ctx)


class KeyIdType(click.ParamType[str]):
    """The public part of a key."""

    name = "ID"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        try:
            return values.key_id(str(value))
        except errors.BadValue as bad:
            self.fail(f"{bad.problem}; allowed: {bad.allowed}", param, ctx)


@click.group()
def keys() -> None:
    """Make, list and revoke API keys.

    A role may do what those before it may: READER queries and asks for reports on single users,
    EDITOR also changes, ADMIN also deletes, reports on all users and manages keys.
    """


@keys.command(epilog=exits("keys create"))
@click.option(
    "--name",
    type=NameType(),
    required=True,
    help="The name that history shows for the key's changes.",
)
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role], case_sensitive=False),
    required=True,
    help="What the key may do.",
)
@data_dir_option
def create(name: str, role: str, data_dir: Path) -> None:
    """Make a key and print it.

    It is printed this once, because only a hash of it is stored.
    """
    row, token = _with_database(
        settings_or_running(data_dir),
        lambda database: database.transaction(
            lambda session: service.create_key(session, name=name, role=Role(role), actor=None)
        ),
    )
    click.echo(
        f"key_{row.public_id}, {row.role}; keep what follows, it is not shown again:", err=True
    )
    click.echo(token)


@keys.command("list", epilog=exits("keys list"))
@data_dir_option
def list_(data_dir: Path) -> None:
    """List the keys, newest first.

    Revoked keys are among them. Times are UTC.
    """
    rows = _with_database(settings_or_running(data_dir), _all)
    table = [TITLES, *(_shown(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(TITLES))]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@keys.command(epilog=exits("keys revoke"))
@click.argument("key_id", metavar="ID", type=KeyIdType())
@data_dir_option
def revoke(key_id: str, data_dir: Path) -> None:
    """Revoke a key for good.

    The service rejects the key a second later. It is safe to repeat.
    """
    try:
        row = _with_database(
            settings_or_running(data_dir),
            lambda database: database.transaction(
                lambda session: service.revoke_key(session, key_id, actor=None)
            ),
        )
    except errors.Refused:
        raise click.ClickException(f"no key has the id key_{key_id}") from None
    name, revoked = _printable(row.name), _moment(row.revoked_at)
    click.echo(f"key_{row.public_id} ({name}) is revoked since {revoked} UTC")


@keys.command("ensure-first", epilog=exits("keys ensure-first"))
@data_dir_option
def ensure_first(data_dir: Path) -> None:
    """Store SEGMENTQL_FIRST_KEY as an ADMIN key.

    A key that was stored before is left as it is, also if it is revoked. It is safe to repeat, and
    to run in several places at once.
    """
    settings = settings_or_running(data_dir)
    token = settings.first_key
    if token is None:
        raise click.ClickException("SEGMENTQL_FIRST_KEY is not set")
    stored = _with_database(
        settings,
        lambda database: database.transaction(
            lambda session: service.ensure_first_key(session, token)
        ),
    )
    click.echo("stored the first key" if stored else "it was stored before; nothing changed")


def _with_database(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """Do it; exit with status 1 and a line where the database does not let us."""

    async def run() -> T:
        database = Database(settings, name="segmentql keys", deliver=lambda messages: None)
        try:
            return await work(database)
        finally:
            await database.dispose()

    try:
        return asyncio.run(run())
    except errors.OutcomeUnknown:
        raise click.ClickException(
            "the database was lost meanwhile: `segmentql keys list` shows whether it was done"
        ) from None
    except (errors.Unavailable, errors.TimedOut):
        raise click.ClickException(
            "the database does not answer, or not in time: see `segmentql doctor`"
        ) from None


async def _all(database: Database) -> list[Row[Any]]:
    rows: list[Row[Any]] = []
    before = values.MAX_USER_ID
    async with database.read() as session:
        while True:
            page = await service.key_page(session, before=before, rows=PAGE_ROWS)
            rows.extend(page)
            if len(page) < PAGE_ROWS:
                return rows
            before = page[-1].key_number


def _shown(row: Row[Any]) -> tuple[str, ...]:
    return (
        f"key_{row.public_id}",
        _printable(row.name),
        row.role,
        *(_moment(at) for at in (row.created_at, row.last_used_at, row.revoked_at)),
    )


def _printable(name: str) -> str:
    """A name that cannot move the cursor or break the line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def _moment(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if at else NEVER
