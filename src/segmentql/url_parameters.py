"""The parameters of database and Redis URLs."""

from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import unquote

MAX_ECHO_CHARACTERS: Final = 63
"""The maximum length of an unknown parameter's name in a message."""


def parse_parameters(
    query: str, allowed: Sequence[str], report: Callable[[str], None]
) -> dict[str, str]:
    """Return the parameters of a URL by name.

    As in libpq and redis-py, an empty value means the default, so the result does not have it. As
    in libpq, `+` is not a space.

    Args:
        query: The part of the URL after `?`.
        allowed: The names of the parameters that are supported.
        report: A function that gets a message for each problem.
    """
    parameters: dict[str, str] = {}
    seen: set[str] = set()
    for part in filter(None, query.split("&")):
        name, sign, value = (unquote(word) for word in part.partition("="))
        if name not in allowed:
            echo = name[:MAX_ECHO_CHARACTERS]
            report(f'the parameter "{echo}" is not supported, only {", ".join(allowed)}')
        elif not sign or name in seen:
            report(f'the parameter "{name}" must be given once, as {name}=VALUE')
        elif value:
            parameters[name] = value
        seen.add(name)
    return parameters
