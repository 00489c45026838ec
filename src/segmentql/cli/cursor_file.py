"""The file in which a consumer of the change feed stores its cursor."""

import os
from pathlib import Path

import click
import orjson


def read_cursor(path: Path) -> str | None:
    """Return the cursor in a file; None if the file does not exist.

    Raises:
        click.ClickException: the file cannot be read, or it has no cursor.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise click.ClickException(f"cannot read {path}: {error.strerror}") from None
    try:
        cursor = orjson.loads(content)["cursor"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        cursor = None
    if not isinstance(cursor, str):
        raise click.ClickException(
            f"{path} does not have a cursor of the feed. Delete it to start again."
        )
    return cursor


def store_cursor(path: Path, cursor: str) -> None:
    """Replace the cursor in a file. After a crash, the file has the old cursor or the new one.

    Raises:
        click.ClickException: the file cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(orjson.dumps({"cursor": cursor}) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from None
