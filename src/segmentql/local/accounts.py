"""Which account of this machine runs the database servers.

PostgreSQL refuses to run as root. An ordinary user runs the servers as itself; root lends them to
an account without privileges.
"""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmentql.errors import LocalServerError

# The account that PostgreSQL's own packages make, and the one that every machine has.
CANDIDATES = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """An account other than ours, which servers are run as."""

    name: str
    user_id: int
    group_id: int


def server_account() -> Account | None:
    """The account to switch to; None where this process' own will do (it is not root).

    Raises:
        LocalServerError: this is root and the machine has no account to switch to.
    """
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise LocalServerError(
        "PostgreSQL does not run as root, and there is no account named "
        f"{' or '.join(CANDIDATES)} to run it as: make one, or run this as an ordinary user"
    )


def popen_user_args(account: Account | None) -> dict[str, Any]:
    """What `subprocess` takes to run a program as `account`."""
    if account is None:
        return {}
    return {"user": account.user_id, "group": account.group_id, "extra_groups": []}


def can_enter(account: Account | None, folder: Path) -> bool:
    """Whether the account may pass through `folder`, or through the nearest one that exists.

    Tried, not computed: access lists and mounts have a say that mode bits do not show.
    """
    while not folder.is_dir():
        folder = folder.parent
    return succeeds(account, 'cd "$1"', folder)


def succeeds(account: Account | None, script: str, path: Path) -> bool:
    """Whether a line of shell, which gets `path` as `$1`, ends well when the account runs it."""
    try:
        done = subprocess.run(  # noqa: S603 - the script is a constant of ours
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
        name = account.name if account else "this account"
        raise LocalServerError(f"cannot run a program as {name}: {error}") from error
    return done.returncode == 0
