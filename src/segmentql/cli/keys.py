"""`segmentql keys`: creates, lists and revokes API keys directly in the database."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import click

from segmentql import errors, validators
from segmentql.adapters.database import Database
from segmentql.cli.converters import Validated
from segmentql.cli.exits import exits
from segmentql.cli.settings import data_dir_option, settings_or_running
from segmentql.keys import service
from segmentql.keys.records import ApiKeyRecord
from segmentql.principal import NO_ACTOR
from segmentql.settings import Settings
from segmentql.tables import Role

T = TypeVar("T")

PAGE_ROWS: Final = 500
HEADER: Final = ("ID", "NAME", "ROLE", "CREATED", "LAST USED", "REVOKED")
NEVER: Final = "-"


@click.group()
def keys() -> None:
    """Create, list and revoke API keys.

    Each role includes the previous one. EVALUATOR may evaluate segments through OpenFeature.
    READER may also run queries, create exports, and request reports on single users. EDITOR may
    also create and change data. ADMIN may also delete data, request reports on all users, and
    manage keys.
    """


@keys.command(epilog=exits("keys create"))
@click.option(
    "--name",
    type=Validated("NAME", validators.name),
    required=True,
    help="The name that history shows for the key's changes.",
)
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role], case_sensitive=False),
    required=True,
    help="The role of the key.",
)
@data_dir_option
def create(name: str, role: str, data_dir: Path) -> None:
    """Create a key and print it.

    The key is shown only once, because only a hash of its secret is stored.
    """
    key, token = _with_database(
        settings_or_running(data_dir),
        lambda database: database.transaction(
            lambda session: service.create_key(session, name=name, role=Role(role), actor=NO_ACTOR)
        ),
    )
    click.echo(f"key_{key.public_id}, {key.role}; save this key, it is not shown again:", err=True)
    click.echo(token)


@keys.command("list", epilog=exits("keys list"))
@data_dir_option
def list_(data_dir: Path) -> None:
    """List all keys, newest first.

    The list includes revoked keys. Times are in UTC.
    """
    records = _with_database(settings_or_running(data_dir), _read_all_keys)
    table = [HEADER, *map(_table_row, records)]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEADER))]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@keys.command(epilog=exits("keys revoke"))
@click.argument("key_id", metavar="ID", type=Validated("ID", validators.key_id))
@data_dir_option
def revoke(key_id: str, data_dir: Path) -> None:
    """Revoke a key permanently.

    The service rejects the key within a second. It is safe to run the command again.
    """
    try:
        key = _with_database(
            settings_or_running(data_dir),
            lambda database: database.transaction(
                lambda session: service.revoke_key(session, key_id, actor=NO_ACTOR)
            ),
        )
    except errors.MutationRejected:
        raise click.ClickException(f"No API key has the id key_{key_id}.") from None
    name, revoked = _printable(key.name), _format_time(key.revoked_at)
    click.echo(f"key_{key.public_id} ({name}) was revoked at {revoked} UTC")


@keys.command("ensure-first", epilog=exits("keys ensure-first"))
@data_dir_option
def ensure_first(data_dir: Path) -> None:
    """Store SEGMENTQL_FIRST_KEY as an ADMIN key.

    If the key is already stored, even if it is revoked, nothing changes. The
    command is idempotent and may run concurrently.
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
    click.echo(
        "stored the first key" if stored else "the first key is already stored; nothing changed"
    )


def _with_database(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """Run `work`; exit with status 1 and a message if the database is not available."""

    async def run() -> T:
        database = Database(settings, name="segmentql keys", publish=lambda messages: None)
        try:
            return await work(database)
        finally:
            await database.dispose()

    try:
        return asyncio.run(run())
    except errors.OutcomeUnknown:
        raise click.ClickException(
            "the connection to the database was lost; run `segmentql keys list` to see whether the"
            " change was made"
        ) from None
    except (errors.Unavailable, errors.TimedOut):
        raise click.ClickException(
            "the database does not respond in time; run `segmentql doctor` for details"
        ) from None


async def _read_all_keys(database: Database) -> list[ApiKeyRecord]:
    keys: list[ApiKeyRecord] = []
    before = validators.MAX_USER_ID
    async with database.read() as session:
        while True:
            page = await service.key_page(session, before=before, rows=PAGE_ROWS)
            keys.extend(page)
            if len(page) < PAGE_ROWS:
                return keys
            before = page[-1].number


def _table_row(key: ApiKeyRecord) -> tuple[str, ...]:
    return (
        f"key_{key.public_id}",
        _printable(key.name),
        key.role,
        *(_format_time(at) for at in (key.created_at, key.last_used_at, key.revoked_at)),
    )


def _printable(name: str) -> str:
    """Escape control characters, which could move the cursor or break the line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def _format_time(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if at else NEVER
