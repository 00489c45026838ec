"""The system account that runs the database servers.

PostgreSQL refuses to run as root. An ordinary user runs the servers under its own account; root
runs them under an account without privileges.
"""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from segmentql.errors import LocalServerError

ACCOUNT_NAMES: Final = ("postgres", "nobody")
"""PostgreSQL's packages create the first account; every machine has the second."""


@dataclass(frozen=True)
class Account:
    """A system account, other than the current one, that runs servers."""

    name: str
    user_id: int
    group_id: int


def server_account() -> Account | None:
    """Return the account for the servers, or None to run them under the current account.

    Raises:
        LocalServerError: The current account is root, and no other account exists.
    """
    if os.geteuid() != 0:
        return None
    for name in ACCOUNT_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise LocalServerError(
        "PostgreSQL does not run as root, and there is no account named "
        f"{' or '.join(ACCOUNT_NAMES)} to run it: create one, or run this as an ordinary user"
    )


def popen_user_args(account: Account | None) -> dict[str, Any]:
    """Return the arguments of `subprocess.Popen` that run a program under an account."""
    if account is None:
        return {}
    return {"user": account.user_id, "group": account.group_id, "extra_groups": []}


def can_enter(account: Account | None, folder: Path) -> bool:
    """Return whether the account can enter `folder`, or its nearest parent that exists.

    A program tries it, because mode bits do not show access control lists and mount options.
    """
    while not folder.is_dir():
        folder = folder.parent
    return script_succeeds(account, 'cd "$1"', folder)


def script_succeeds(account: Account | None, script: str, path: Path) -> bool:
    """Run a shell script under an account and return whether it exits with 0.

    Args:
        account: The account, or None for the current one.
        script: The script. Its `$1` is `path`.
        path: The argument of the script.

    Raises:
        LocalServerError: The account cannot run programs.
    """
    try:
        completed = subprocess.run(  # noqa: S603 - the script is a constant
            ["/bin/sh", "-c", script, "sh", str(path)],
            cwd="/",
            env={"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            **popen_user_args(account),
        )
    except (OSError, subprocess.SubprocessError) as error:
        name = account.name if account else "the current account"
        raise LocalServerError(f"cannot run a program as {name}: {error}") from error
    return completed.returncode == 0
