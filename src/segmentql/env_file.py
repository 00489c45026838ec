"""Checks the names of settings in the environment and in `.env` before any value is read."""

import io
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from dotenv.parser import Binding, parse_stream

ENCODING: Final = "utf-8-sig"
"""UTF-8 with or without a byte order mark, which some editors write."""

UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")

SERVICE_NAME: Final = re.compile(
    r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
SERVICE_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://")
"""Kubernetes and Docker set such variables for a service named segmentql or segmentql-api, and a
variable `..._PORT` with such a value. These are not settings."""


@dataclass(frozen=True)
class EnvFile:
    """The names in `.env`, and the problems of the file."""

    lines: Mapping[str, int] = field(default_factory=dict)
    """The line of each name in upper case. If a name is repeated, the last line counts."""
    problems: tuple[str, ...] = ()


def read_env_file(path: Path, prefix: str) -> EnvFile:
    """Read the names in a file and check its form. pydantic-settings reads the values."""
    if path.is_dir():
        return EnvFile(problems=(f"{path} is a folder, but must be a file with lines NAME=value",))
    if not path.is_file():  # for example a pipe, which can be read only once
        return EnvFile()
    try:
        text = _decode(path)
    except OSError as error:
        return EnvFile(problems=(f"{path} cannot be read: {error.strerror}",))
    except ValueError as error:
        return EnvFile(problems=(str(error),))
    lines: dict[str, int] = {}
    problems = []
    for binding in parse_stream(io.StringIO(text)):
        line = _line(binding)
        if binding.error and prefix in binding.original.string.upper():
            problems.append(f"{path}, line {line}: must have the form NAME=value")
        if binding.key:
            lines[binding.key.upper()] = line
    return EnvFile(lines, tuple(problems))


def unknown_names(
    env_file: EnvFile,
    path: Path,
    environment: Mapping[str, str],
    known: Collection[str],
    setting_name: re.Pattern[str],
) -> Iterator[str]:
    """Yield a message for each name that looks like a setting but is unknown.

    Args:
        setting_name: matches names of settings, in upper case.
    """
    for name, line in env_file.lines.items():
        if setting_name.fullmatch(name) and name not in known:
            yield f"{path}, line {line}: {_unknown(name, known)}"
    for name, value in environment.items():
        if name.upper() in known or not setting_name.fullmatch(name.upper()):
            continue
        if not (SERVICE_NAME.fullmatch(name) or SERVICE_ADDRESS.match(value)):
            yield f"in the environment: {_unknown(name, known)}"


def _decode(path: Path) -> str:
    """Return the text of a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not in UTF-8. The message contains the line.
    """
    content = path.read_bytes()
    if content.startswith(UTF16_MARKS) or b"\0" in content:
        raise ValueError(f"{path} is in UTF-16, but must be in UTF-8")
    try:
        return content.decode(ENCODING)
    except UnicodeDecodeError as error:
        # The error's position does not count a byte order mark.
        line = content.removeprefix(b"\xef\xbb\xbf")[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        raise ValueError(f"{path}, line {line}: the byte 0x{byte:02x} is not valid UTF-8") from None


def _line(binding: Binding) -> int:
    """Return the line of a name. A binding includes the blank lines and comments before it."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _unknown(name: str, known: Collection[str]) -> str:
    # Without the common prefix, which would make all names similar.
    suffixes = {other.partition("_")[2]: other for other in known}
    matches = get_close_matches(name.upper().partition("_")[2], suffixes, n=1)
    hint = f"did you mean {suffixes[matches[0]]}?" if matches else ".env.example lists all settings"
    return f"{name} is not a setting; {hint}"
