"""The output of `segmentql up`: plain lines, or aligned and coloured lines on a terminal."""

import contextlib
import sys
from dataclasses import dataclass
from enum import Enum
from typing import TextIO

import click

from segmentql.logs import PROGRAM_WIDTH
from segmentql.settings import wants_no_colour

STATE_WIDTH = 22


class Status(Enum):
    """The status that a line reports, with its colour on a terminal."""

    STARTED = "green"
    STOPPED = "bright_black"
    PROBLEM = "yellow"


@dataclass(frozen=True)
class Step:
    """A line about a program: its new state, and how many seconds the transition took."""

    name: str
    state: str = ""
    seconds: float | None = None
    status: Status = Status.STARTED

    def __str__(self) -> str:
        line = f"{self.name} {self.state}".strip()
        return line if self.seconds is None else f"{line}, {self.seconds:.1f} s"

    def styled(self) -> str:
        """Return the line for a terminal, in columns and with a coloured name."""
        line = click.style(self.name.ljust(PROGRAM_WIDTH), fg=self.status.value)
        if self.seconds is None:
            return line + self.state
        return f"{line}{self.state:<{STATE_WIDTH}} {self.seconds:5.1f} s"


@dataclass(frozen=True)
class Summary:
    """The addresses and the example that the user needs once everything runs."""

    seconds: float
    """The duration of the start."""
    addresses: tuple[tuple[str, str], ...]
    """Pairs of a title, such as "GraphiQL", and an address or path."""
    example: str
    """A first request for the user to try."""

    def __str__(self) -> str:
        return self._text(f"ready after {self.seconds:.1f} s")

    def styled(self) -> str:
        """Return the lines for a terminal, with a bold heading."""
        return self._text(click.style(f"ready after {self.seconds:.1f} s", fg="green", bold=True))

    def _text(self, heading: str) -> str:
        lines = [f"{title + ':':<{PROGRAM_WIDTH}}{value}" for title, value in self.addresses]
        return "\n".join([f"{heading}; Ctrl-C stops everything", "", *lines, "", self.example])


class Terminal:
    """A writer of lines to a stream, which may be a terminal, a pipe or a file."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._is_terminal = self._stream.isatty()

    def print_line(self, line: str | Step | Summary) -> None:
        """Print a line. Errors are ignored, so that `up` stops its servers on a closed terminal."""
        text = line.styled() if self._is_terminal and not isinstance(line, str) else str(line)
        text = printable(text)
        with contextlib.suppress(OSError):
            # With None, click prints colours only on a terminal.
            click.echo(text, file=self._stream, color=False if wants_no_colour() else None)


def printable(text: str) -> str:
    """Escape the bytes of paths that are not UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
