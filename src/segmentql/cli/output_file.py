"""The file that a command writes: it appears when it is complete."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click

from segmentql.cli.output import OutputClosed

STDOUT: Final = "-"


@contextlib.contextmanager
def open_output(target: str) -> Iterator[Callable[[bytes], None]]:
    """Open the output, and yield a function that writes to it.

    A regular file appears under its name when it is complete.
    """

    def to_click_error(error: OSError) -> Exception:
        if isinstance(error, BrokenPipeError):
            return OutputClosed()
        return click.ClickException(f"cannot write {target}: {error.strerror}")

    def write(chunk: bytes) -> None:
        try:
            file.write(chunk)
        except OSError as error:
            # Converted here, because an outer handler would treat an OSError as a database error.
            raise to_click_error(error) from None

    path = Path(target).resolve()  # resolves links, so that a link is not replaced
    part = path.with_name(f"{path.name}.part")
    try:
        if target == STDOUT:
            # Opened again, so that errors of the last write are raised here and not at the exit.
            with open(sys.stdout.fileno(), "wb", closefd=False) as file:
                yield write
        elif path.exists() and not path.is_file():  # a pipe or a device
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
        raise to_click_error(error) from None
