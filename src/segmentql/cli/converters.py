"""Parameter types of commands, which use the validators of the API."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

import click

from segmentql import machine
from segmentql.errors import BadValue

T = TypeVar("T")


class Validated(click.ParamType[T], Generic[T]):
    """A parameter that a validator checks and converts."""

    def __init__(self, name: str, validator: Callable[[str], T]) -> None:
        """Create the type.

        Args:
            name: The placeholder of the value in the help, such as `ID`.
            validator: Converts the text, and raises BadValue if it is not valid.
        """
        self.name = name
        self._validator = validator

    def convert(self, value: Any, param: Any, ctx: Any) -> T:
        if not isinstance(value, str):  # click converts a default twice
            return value  # type: ignore[no-any-return]
        try:
            return self._validator(value)
        except BadValue as error:
            self.fail(error_text(error), param, ctx)


AUTO: Final = "auto"

MAX_PROCESSES: Final = 64
"""The maximum number of API processes."""


class ProcessCount(click.ParamType[int]):
    """A number of API processes. `auto` is one per processor, within the memory."""

    name = "number"

    def __init__(self, *, auto_maximum: int = MAX_PROCESSES) -> None:
        """Create the type.

        Args:
            auto_maximum: The maximum number for `auto`.
        """
        self._auto_maximum = auto_maximum

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if value == AUTO:
            return machine.api_processes(maximum=self._auto_maximum)
        return click.IntRange(1, MAX_PROCESSES).convert(value, param, ctx)


def error_text(error: BadValue) -> str:
    """Return the message for an invalid value."""
    return f"{error.problem}; allowed: {error.allowed}"


def parse_time(text: str) -> datetime:
    """Parse a time with an offset; return it in UTC.

    Raises:
        BadValue: the text is not such a time.
    """
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise BadValue(f'"{text}" is not a time with an offset', "a time such as 2026-11-03T10:15:00Z")
