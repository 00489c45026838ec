"""The names of settings in the environment and in `.env`, checked before any value is read."""

import io
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from dotenv.parser import Binding, parse_stream

ENCODING: Final = "utf-8-sig"
"""UTF-8, with or without the byte order mark that some editors write."""

UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")

SERVICE_NAME: Final = re.compile(
    r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
SERVICE_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://")
"""Kubernetes and Docker describe a neighbour named segmentql, or segmentql-api, by such names, and
by `..._PORT` with such a value."""


@dataclass(frozen=True)
class EnvFile:
    """What `.env` says."""

    lines: Mapping[str, int] = field(default_factory=dict)
    """The line of each name, in upper case; of the last one, which counts, if there are several."""
    problems: tuple[str, ...] = ()


def read_env_file(path: Path, prefix: str) -> EnvFile:
    """Read the names in a file, and what is wrong with the file; values are left to its reader."""
    if path.is_dir():
        return EnvFile(problems=(f"{path} is a folder; it must be a file of lines NAME=value",))
    if not path.is_file():  # a pipe can be read only once
        return EnvFile()
    try:
        text = _decoded(path)
    except OSError as error:
        return EnvFile(problems=(f"{path} cannot be read: {error.strerror}",))
    except ValueError as error:
        return EnvFile(problems=(str(error),))
    lines: dict[str, int] = {}
    problems = []
    for binding in parse_stream(io.StringIO(text)):
        line = _line(binding)
        if binding.error and prefix in binding.original.string.upper():
            problems.append(f"{path}, line {line}: not a line NAME=value")
        if binding.key:
            lines[binding.key.upper()] = line
    return EnvFile(lines, tuple(problems))


def unknown_names(
    env_file: EnvFile,
    path: Path,
    environment: Mapping[str, str],
    known: Collection[str],
    is_ours: re.Pattern[str],
) -> Iterator[str]:
    """A problem for each name that looks like one of our settings and is none.

    Args:
        is_ours: matches the names, in upper case, that only our settings have.
    """
    for name, line in env_file.lines.items():
        if is_ours.fullmatch(name) and name not in known:
            yield f"{path}, line {line}: {_unknown(name, known)}"
    for name, value in environment.items():
        if name.upper() in known or not is_ours.fullmatch(name.upper()):
            continue
        if not (SERVICE_NAME.fullmatch(name) or SERVICE_ADDRESS.match(value)):
            yield f"in the environment: {_unknown(name, known)}"


def _decoded(path: Path) -> str:
    """The text of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8; the message names the line.
    """
    content = path.read_bytes()
    if content.startswith(UTF16_MARKS) or b"\0" in content:
        raise ValueError(f"{path} is in UTF-16: save it in UTF-8")
    try:
        return content.decode(ENCODING)
    except UnicodeDecodeError as error:
        # The error's position does not count a byte order mark.
        line = content.removeprefix(b"\xef\xbb\xbf")[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        raise ValueError(
            f"{path}, line {line}: the byte 0x{byte:02x} is not UTF-8: save the file in UTF-8"
        ) from None


def _line(binding: Binding) -> int:
    """The line of a name: the blank lines and comments before it belong to its binding."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _unknown(name: str, known: Collection[str]) -> str:
    # Without what all names have in common, which makes every two of them similar.
    endings = {other.partition("_")[2]: other for other in known}
    near = get_close_matches(name.upper().partition("_")[2], endings, n=1)
    hint = f"did you mean {endings[near[0]]}?" if near else ".env.example has all of them"
    return f"{name} is not a setting; {hint}"
