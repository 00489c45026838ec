"""Exit codes of all commands. The help of each command and docs/commands.md show them."""

from collections.abc import Mapping
from typing import Final

COMMON: Final = {
    0: "The command succeeded.",
    1: "The command failed. See standard error.",
    2: "The command line is invalid.",
}
LONG_RUNNING: Final = {
    0: "A signal stopped the process.",
    1: "The process could not start or continue. See standard error.",
    2: COMMON[2],
}

EXIT_CODES: Final[Mapping[str, Mapping[int, str]]] = {
    "up": LONG_RUNNING,
    "serve": LONG_RUNNING,
    "worker": LONG_RUNNING,
    "migrate": COMMON,
    "downgrade": COMMON,
    "bucket": COMMON,
    "seed": COMMON,
    "reset": COMMON,
    "report": COMMON,
    "rollout watch": {
        0: "The rollout was completed or cancelled.",
        1: "The rollout failed, or the database does not respond.",
        2: "The rollout does not exist, or the command line is invalid.",
        130: "Ctrl-C ended the command.",
    },
    "explain": COMMON,
    "import": {
        0: "The import was completed, or its dry run is done. No row was rejected.",
        1: "The command or the import failed, or the import was cancelled. See standard error.",
        2: "The command line is invalid, or the API rejects a value of it.",
        3: "Rows were rejected. The others were applied, except by a dry run.",
        4: "The import is held, or would be held after the dry run. Nothing was applied.",
        5: "The import was refused. Nothing was applied.",
        130: "Ctrl-C ended the command and cancelled the import.",
    },
    "export": {**COMMON, 2: "The command line is invalid, or the API rejects a value of it."},
    "changes": {
        0: "The command printed all changes and caught up (--no-follow).",
        1: "The command failed. See standard error.",
        2: "The command line is invalid, or the API rejects a value of it.",
        3: "The feed cannot continue at the cursor: changes are no longer stored, or the database"
        " was restored.",
        130: "Ctrl-C ended the command.",
    },
    "keys create": COMMON,
    "keys list": COMMON,
    "keys revoke": COMMON,
    "keys ensure-first": COMMON,
    "documents push": {
        **COMMON,
        1: "A document is not valid, or the command failed. See standard error.",
    },
    "doctor": {0: "No check failed.", 1: "A check failed.", 2: COMMON[2]},
    "schema": {
        0: "The command succeeded. With --compare: no change breaks clients.",
        1: "FILE cannot be read, or a change breaks clients.",
        2: COMMON[2],
    },
}
"""Meaning of each exit code, by command as the user types it."""


def exits(command: str) -> str:
    """Return the last part of a command's help: its exit codes, one on each line."""
    lines = (f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES[command].items())
    # Click keeps the line breaks of a paragraph that begins with \b.
    return "\b\nExit codes:\n" + "\n".join(lines)
