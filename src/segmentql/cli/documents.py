"""`segmentql documents`: stores trusted documents directly in the database."""

import asyncio
import re
from pathlib import Path
from typing import Final

import click

from segmentql import errors
from segmentql.adapters.database import Database
from segmentql.cli.exits import exits
from segmentql.cli.settings import data_dir_option, settings_or_running
from segmentql.document_ids import format_document_id, hash_document
from segmentql.documents import service
from segmentql.documents.manifests import parse_manifest
from segmentql.principal import NO_ACTOR
from segmentql.settings import Settings

MAX_SHOWN_ERRORS: Final = 20
"""The maximum number of invalid documents that the command shows."""

_OPERATION: Final = re.compile(r"\b(?:query|mutation|subscription)\s+(\w+)")


@click.group()
def documents() -> None:
    """Store the documents of clients."""


@documents.command(epilog=exits("documents push"))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@data_dir_option
def push(file: Path, data_dir: Path) -> None:
    """Store the documents of a manifest.

    FILE is the manifest of GraphQL Code Generator, Apollo or Relay. Each document must be valid for
    this version of the schema. If one is not, none is stored. It is safe to run the command again.
    """
    try:
        texts = parse_manifest(file.read_bytes())
    except errors.BadValue as bad:
        raise click.ClickException(f"{file}: {bad.problem}; allowed: {bad.allowed}") from None
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read: {error.strerror}") from None
    settings = settings_or_running(data_dir)
    _check(settings, file, texts)
    try:
        stored = asyncio.run(_store(settings, texts))
    except errors.OutcomeUnknown:
        raise click.ClickException(
            "the connection to the database was lost; run the command again, which is safe"
        ) from None
    except (errors.Unavailable, errors.TimedOut):
        raise click.ClickException(
            "the database does not respond in time; run `segmentql doctor` for details"
        ) from None
    known = len(set(texts)) - stored
    click.echo(f"{stored} documents stored; {known} were already stored")


def _check(settings: Settings, file: Path, texts: list[str]) -> None:
    """Check all documents.

    Raises:
        click.ClickException: A document is not valid.
    """
    from segmentql.schema import document_errors  # noqa: PLC0415 - slow to import

    invalid = list(document_errors(settings, texts))
    for text, message in invalid[:MAX_SHOWN_ERRORS]:
        name = _OPERATION.search(text)
        shown_name = f" ({name[1]})" if name else ""
        click.echo(f"{format_document_id(hash_document(text))}{shown_name}: {message}", err=True)
    if invalid:
        raise click.ClickException(
            f"{file}: {len(invalid)} of {len(texts)} documents are not valid. Nothing was stored."
        )


async def _store(settings: Settings, texts: list[str]) -> int:
    database = Database(settings, name="segmentql documents", publish=lambda messages: None)
    try:
        return await database.transaction(
            lambda session: service.store_documents(session, texts, actor=NO_ACTOR)
        )
    finally:
        await database.dispose()
