"""What `segmentql up` prints: plain lines, or aligned and coloured ones on a terminal."""

import contextlib
import sys
from dataclasses import dataclass
from enum import Enum
from typing import TextIO

import click

from segmentql.logs import PROGRAM_WIDTH
from segmentql.settings import wants_no_colour

STATE_WIDTH = 22


class Tone(Enum):
    """How a line is coloured on a terminal."""

    STARTED = "green"
    STOPPED = "bright_black"
    PROBLEM = "yellow"


@dataclass(frozen=True)
class Step:
    """One line about a program or a task: its state, and how long it took to reach it."""

    name: str
    state: str = ""
    seconds: float | None = None
    tone: Tone = Tone.STARTED

    def __str__(self) -> str:
        line = f"{self.name} {self.state}".strip()
        return line if self.seconds is None else f"{line}, {self.seconds:.1f} s"

    def styled(self) -> str:
        """The line for a terminal: columns, the name in a colour."""
        line = click.style(self.name.ljust(PROGRAM_WIDTH), fg=self.tone.value)
        if self.seconds is None:
            return line + self.state
        return f"{line}{self.state:<{STATE_WIDTH}} {self.seconds:5.1f} s"


@dataclass(frozen=True)
class Summary:
    """What a user needs once everything runs."""

    seconds: float
    addresses: tuple[tuple[str, str], ...]
    """Titles, such as "GraphiQL", with what they stand for."""
    example: str
    """A request to try first."""

    def __str__(self) -> str:
        return self._text(f"ready after {self.seconds:.1f} s")

    def styled(self) -> str:
        """The lines for a terminal: the first words in bold."""
        return self._text(click.style(f"ready after {self.seconds:.1f} s", fg="green", bold=True))

    def _text(self, ready: str) -> str:
        lines = [f"{title + ':':<{PROGRAM_WIDTH}}{value}" for title, value in self.addresses]
        return "\n".join([f"{ready}; Ctrl-C stops everything", "", *lines, "", self.example])


class Terminal:
    """Prints lines to a stream, which may be a terminal, a pipe or a file."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._is_terminal = self._stream.isatty()

    def say(self, line: str | Step | Summary) -> None:
        """Print a line. A terminal that was closed does not keep `up` from stopping its servers."""
        text = line.styled() if self._is_terminal and not isinstance(line, str) else str(line)
        text = printable(text)
        with contextlib.suppress(OSError):
            # Without a decision, click prints colours on a terminal only.
            click.echo(text, file=self._stream, color=False if wants_no_colour() else None)


def printable(text: str) -> str:
    """Escape the bytes of paths that are not UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
