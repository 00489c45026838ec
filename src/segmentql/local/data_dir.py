"""The data folder: its location, its files and their permissions.

    secrets.json   the passwords, mode 600
    ports.json     the servers' ports, which the next start uses again
    run/           the files of one run: the lock, the list of sockets, PID files, metrics
    logs/          the logs of the servers, the API, the worker and the tasks of the start
    postgres/      the private folder of PostgreSQL
    redis/         the private folder of Redis
    store/         the private folder of the object store

Only folders that SegmentQL creates get their mode or owner changed.
"""

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from segmentql.errors import LocalServerError
from segmentql.local.accounts import Account, can_enter
from segmentql.local.disk import describe_os_error

SHARED_FOLDER: Final = Path("/var/lib/segmentql")
"""The folder for files that the servers' account needs if it cannot enter root's folders."""

MAX_PATH_BYTES: Final = 900
"""The maximum length of a data folder's path. PostgreSQL and Redis allow 1024 bytes for a path,
and append their own file names."""


def _generate_password() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class Secrets:
    """The passwords of the servers, generated once per data folder."""

    superuser: str = field(default_factory=_generate_password, repr=False)
    owner: str = field(default_factory=_generate_password, repr=False)
    service: str = field(default_factory=_generate_password, repr=False)
    redis: str = field(default_factory=_generate_password, repr=False)
    store_access_key: str = field(default_factory=_generate_password, repr=False)
    store_secret_key: str = field(default_factory=_generate_password, repr=False)
    store_inner_key: str = field(default_factory=_generate_password, repr=False)
    """The key that signs the requests between the components of the object store."""


@dataclass(frozen=True)
class DataFolder:
    """An existing data folder, and the account that runs the servers in it."""

    path: Path
    account: Account | None

    @property
    def run_folder(self) -> Path:
        return self.path / "run"

    @property
    def metrics_folder(self) -> Path:
        return self.run_folder / "metrics"

    @property
    def logs_folder(self) -> Path:
        return self.path / "logs"

    def log_file(self, name: str) -> Path:
        return self.logs_folder / f"{name}.log"

    def server_folder(self, name: str) -> Path:
        """Return the private folder of a server, and create it if it does not exist.

        Raises:
            LocalServerError: The folder belongs to another account, or is not a folder.
        """
        folder = self.path / name
        make_folder(folder, 0o700)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise LocalServerError(f"{folder} must be a folder: move or delete the file")
        user_id = self.account.user_id if self.account else os.geteuid()
        if self.account and status.st_uid == os.geteuid() and not any(folder.iterdir()):
            os.chown(folder, self.account.user_id, self.account.group_id)
        elif status.st_uid != user_id:
            raise LocalServerError(
                f"{folder} belongs to user {status.st_uid}, but its server would run as user "
                f"{user_id}: run this as its owner, or choose another --data-dir"
            )
        return folder

    def secrets(self) -> Secrets:
        """Return the passwords. The first call generates and stores them.

        Passwords that the file of an older version lacks are added to it.
        """
        file = self.path / "secrets.json"
        stored = json.loads(file.read_text()) if file.exists() else {}
        secrets = Secrets(**stored)
        if asdict(secrets) != stored:
            write_private(file, json.dumps(asdict(secrets), indent=2) + "\n")
        return secrets


def fallback_folder(data_dir: Path) -> Path:
    """Return the folder that replaces a data folder which the servers' account cannot enter.

    Args:
        data_dir: The resolved path of the data folder.
    """
    return SHARED_FOLDER / hashlib.sha256(bytes(data_dir)).hexdigest()[:16]


def open_data_folder(
    data_dir: Path, account: Account | None, print_line: Callable[[str], None]
) -> DataFolder:
    """Create the data folder if needed, and return it or its fallback folder.

    The fallback folder is used if the servers' account cannot enter the data folder. Once it
    exists, it is always used, so that the data do not seem to vanish when the mode of a parent
    folder changes.

    Args:
        data_dir: The path that the user chose.
        account: The account of the servers, or None for the current account.
        print_line: Prints a message for the user.

    Raises:
        LocalServerError: The folder cannot be created or written, its path is too long for the
            servers, or the servers' account cannot reach the data in it.
    """
    path = data_dir.resolve()
    if len(bytes(path)) > MAX_PATH_BYTES:
        raise LocalServerError(
            f"the data folder's path must have at most {MAX_PATH_BYTES} bytes, but has "
            f"{len(bytes(path))}: {path}"
        )
    if account is not None:
        fallback = fallback_folder(path)
        holds_data = (path / "postgres").exists()
        is_closed = not can_enter(account, path)
        if is_closed and holds_data:
            raise LocalServerError(
                f"{path} holds data, but {account.name}, the account that runs PostgreSQL for"
                " root, cannot enter it: run this as the folder's owner, or choose another"
                " --data-dir"
            )
        if is_closed or (fallback.exists() and not holds_data):
            print_line(f"data in {fallback}, because {account.name} cannot enter {path}")
            path = fallback
    try:
        # The servers' account may pass through the folder, but not list it.
        make_folder(path, 0o711 if account else 0o700)
        for name in ("run", "logs"):
            make_folder(path / name, 0o700)
        if not os.access(path / "run", os.W_OK | os.X_OK):
            raise PermissionError(f"{path / 'run'} is not writable")
    except OSError as error:
        raise LocalServerError(
            f"cannot use the data folder {path}: {describe_os_error(error, path)}"
        ) from error
    return DataFolder(path, account)


def make_folder(path: Path, mode: int) -> None:
    """Create a folder and its parents with `mode` regardless of the umask.

    Folders that exist already are not changed.
    """
    if path.exists():
        return
    make_folder(path.parent, mode)
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        return
    path.chmod(mode)


def write_private(path: Path, text: str, account: Account | None = None) -> None:
    """Write a file atomically. Only `account`, or else the current account, can read it."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
        if account:
            os.fchown(descriptor, account.user_id, account.group_id)
    temporary.replace(path)
