"""The data folder: where it is, what is in it, and who may read it.

    secrets.json   the passwords, mode 600
    ports.json     the servers' ports, which they take again at the next start
    run/           the files of one run: the lock, sockets to remove, process ids, metrics
    logs/          the logs of the servers, the API, the worker and the tasks at the start
    postgres/      PostgreSQL's own folder, only its account may enter
    redis/         Redis' own folder, likewise
    store/         the object store's own folder, likewise

No mode or owner is ever changed but those of folders made here.
"""

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from segmentql.errors import LocalServerError
from segmentql.local.accounts import Account, can_enter
from segmentql.local.disk import explained

# Where root puts what another account must reach when our own folders are closed to it.
SHARED_FOLDER = Path("/var/lib/segmentql")

# PostgreSQL and Redis have 1024 bytes for a path, and their own names follow.
LONGEST_PATH_BYTES = 900


def _password() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class Secrets:
    """Passwords of the servers, made once for a data folder."""

    superuser: str = field(default_factory=_password, repr=False)
    owner: str = field(default_factory=_password, repr=False)
    service: str = field(default_factory=_password, repr=False)
    redis: str = field(default_factory=_password, repr=False)
    store_access_key: str = field(default_factory=_password, repr=False)
    store_secret_key: str = field(default_factory=_password, repr=False)
    store_inner_key: str = field(default_factory=_password, repr=False)
    """What the store's own parts sign their requests to each other with."""


@dataclass(frozen=True)
class DataFolder:
    """A data folder that exists, and the account that runs the servers in it."""

    path: Path
    account: Account | None

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def metrics(self) -> Path:
        return self.run / "metrics"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def server_folder(self, name: str) -> Path:
        """The folder of one server, made when it is missing: only the server's account enters.

        Raises:
            LocalServerError: it belongs to somebody else.
        """
        folder = self.path / name
        make_folder(folder, 0o700)
        owner = folder.lstat()
        if not stat.S_ISDIR(owner.st_mode):
            raise LocalServerError(f"{folder} is in the way: it should be a folder")
        wanted = self.account.user_id if self.account else os.geteuid()
        if self.account and owner.st_uid == os.geteuid() and not any(folder.iterdir()):
            os.chown(folder, self.account.user_id, self.account.group_id)
        elif owner.st_uid != wanted:
            raise LocalServerError(
                f"{folder} belongs to user {owner.st_uid}, but its server would run as user "
                f"{wanted}: run this as its owner, or choose another --data-dir"
            )
        return folder

    def secrets(self) -> Secrets:
        """The passwords, generated and kept on the first call.

        Those that a folder of an older version lacks are added.
        """
        file = self.path / "secrets.json"
        kept = json.loads(file.read_text()) if file.exists() else {}
        secrets = Secrets(**kept)
        if asdict(secrets) != kept:
            write_private(file, json.dumps(asdict(secrets), indent=2) + "\n")
        return secrets


def open_data_folder(
    data_dir: Path, account: Account | None, say: Callable[[str], None]
) -> DataFolder:
    """Make and open the data folder, or its stand-in where the servers' account has no way in.

    A stand-in is used for good once it exists, so that data do not seem to vanish when a mode
    above the folder changes.

    Raises:
        LocalServerError: the folder cannot be made or written, its path is too long for the
            servers, or its data belong to others.
    """
    path = data_dir.resolve()
    if len(bytes(path)) > LONGEST_PATH_BYTES:
        raise LocalServerError(
            f"the data folder's path must have at most {LONGEST_PATH_BYTES} bytes, but has "
            f"{len(bytes(path))}: {path}"
        )
    if account is not None:
        stand_in = SHARED_FOLDER / hashlib.sha256(bytes(path)).hexdigest()[:16]
        holds_data = (path / "postgres").exists()
        closed = not can_enter(account, path)
        if closed and holds_data:
            raise LocalServerError(
                f"{path} holds data, but {account.name}, who runs PostgreSQL when you are root, "
                "cannot enter it: run this as the folder's owner, or choose another --data-dir"
            )
        if closed or (stand_in.exists() and not holds_data):
            say(f"data in {stand_in}, because {account.name} cannot enter {path}")
            path = stand_in
    try:
        # Its account passes through the folder, and reads nothing of it.
        make_folder(path, 0o711 if account else 0o700)
        for part in ("run", "logs"):
            make_folder(path / part, 0o700)
        if not os.access(path / "run", os.W_OK | os.X_OK):
            raise PermissionError(f"{path / 'run'} is not writable")
    except OSError as error:
        raise LocalServerError(
            f"cannot use the data folder {path}: {explained(error, path)}"
        ) from error
    return DataFolder(path, account)


def make_folder(path: Path, mode: int) -> None:
    """Make a folder, and those above it, with `mode` whatever the umask; one that exists stays."""
    if path.exists():
        return
    make_folder(path.parent, mode)
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        return
    path.chmod(mode)


def write_private(path: Path, text: str, account: Account | None = None) -> None:
    """Write a file whole or not at all; nobody but `account` (or this one) may read it."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
        if account:
            os.fchown(descriptor, account.user_id, account.group_id)
    part.replace(path)
