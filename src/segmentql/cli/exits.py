"""Exit codes of the commands: each command's help shows its own, and docs/commands.md has all."""

from collections.abc import Mapping
from typing import Final

COMMON: Final = {
    0: "It is done.",
    1: "It failed; standard error says why.",
    2: "The command line is wrong.",
}
ENDLESS: Final = {
    0: "A signal stopped it.",
    1: "It could not start, or not go on; standard error says why.",
    2: COMMON[2],
}

EXIT_CODES: Final[Mapping[str, Mapping[int, str]]] = {
    "up": ENDLESS,
    "serve": ENDLESS,
    "worker": ENDLESS,
    "migrate": COMMON,
    "bucket": COMMON,
    "seed": COMMON,
    "reset": COMMON,
    "report": COMMON,
    "rollout watch": {
        0: "The rollout is completed or cancelled.",
        1: "The rollout failed, or the database does not answer.",
        2: "There is no such rollout, or the command line is wrong.",
        130: "Ctrl-C ended the watching.",
    },
    "keys create": COMMON,
    "keys list": COMMON,
    "keys revoke": COMMON,
    "keys ensure-first": COMMON,
    "doctor": {0: "No check failed.", 1: "A check failed.", 2: COMMON[2]},
    "schema": {
        0: "It is done; with --compare: no change breaks clients.",
        1: "FILE cannot be read, or a change breaks clients.",
        2: COMMON[2],
    },
}
"""By command, as a user types it."""


def exits(command: str) -> str:
    """Return the end of a command's help: its exit codes, each on a line of its own."""
    lines = (f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES[command].items())
    # Click keeps the lines of a paragraph that begins with \b.
    return "\b\nExit codes:\n" + "\n".join(lines)
