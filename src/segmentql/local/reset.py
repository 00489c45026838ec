"""Deletes a data folder: stops its run, and removes what SegmentQL made in it and nothing else."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from segmentql.errors import LocalServerError
from segmentql.local.data_dir import SHARED_FOLDER, DataFolder
from segmentql.local.orphans import ON_LINUX
from segmentql.local.process import ChildProcess, Program
from segmentql.local.store import remove_sockets

STOP_SECONDS: Final = 60.0
"""How long a running `segmentql up` may take to stop before it is told to hurry."""
HURRY_SECONDS: Final = 20.0
"""How long it may take then before it is killed."""
POLL_SECONDS: Final = 0.1

CLOSED_MODE: Final = 0o700
"""The mode with which a server's folder is made."""
FILES: Final = ("secrets.json", ".secrets.json.part", "ports.json", ".ports.json.part")
RUN_FILES: Final = ("*.pid", "settings.json", ".*.part", "store.ports", "lock")
"""The lock is last: until then no other run starts."""
LOG_FILES: Final = ("*.log",)
SERVER_FOLDERS: Final = {
    "postgres": ("data", "data.part", "password"),
    "redis": ("redis.conf",),
    "store": ("s3.json",),
}
"""The folders of the servers, and files of which at least one is in a folder that a server used."""


def data_folders(data_dir: Path) -> list[Path]:
    """Find the data folders of a `--data-dir`: the folder itself, and root's stand-in for it.

    Raises:
        LocalServerError: The folder exists, but it is not a data folder.
    """
    path = data_dir.resolve()
    stand_in = SHARED_FOLDER / hashlib.sha256(bytes(path)).hexdigest()[:16]
    try:
        found = [folder for folder in (path, stand_in) if (folder / "run" / "lock").is_file()]
        if not found and path.exists():
            raise LocalServerError(
                f"{path} is not a data folder of SegmentQL: it has no file run/lock"
            )
    except PermissionError as error:
        raise LocalServerError(f"cannot read {path}: {error}") from error
    return found


def running_pid(folder: Path) -> int | None:
    """Return the id of the process that uses a data folder, or None."""
    with _opened_lock(folder) as lock:
        return None if _try_lock(lock) else _holder(lock, folder)


async def delete(folder: Path, say: Callable[[str], None]) -> None:
    """Stop what runs in a data folder and delete what SegmentQL made in it.

    Raises:
        LocalServerError: A process does not end, or a file cannot be deleted.
    """
    with _opened_lock(folder) as lock:
        await _stop_run(lock, folder, say)
        for program in _programs(folder):
            await ChildProcess(program).stop_orphans()
        remove_sockets(folder / "run")
        try:
            left = _delete_files(folder)
        except OSError as error:
            raise LocalServerError(f"cannot delete {folder}: {error}") from error
    if left:
        names = ", ".join(str(path.relative_to(folder)) for path in left)
        say(f"deleted the data in {folder}; SegmentQL did not make these and keeps them: {names}")
    else:
        say(f"deleted {folder}")


@contextlib.contextmanager
def _opened_lock(folder: Path) -> Iterator[int]:
    try:
        descriptor = os.open(folder / "run" / "lock", os.O_RDWR)
    except OSError as error:
        raise LocalServerError(f"cannot use {folder}: {error}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int, folder: Path) -> int:
    """Return the id of the process that holds the lock.

    Raises:
        LocalServerError: The process is not visible here: it may run in a container.
    """
    text = os.pread(descriptor, 20, 0).decode().strip()
    pid = int(text) if text.isdecimal() else 0
    lock = folder / "run" / "lock"
    if not pid or (ON_LINUX and not _has_open(pid, lock)):
        raise LocalServerError(f"{folder} is in use by a process that cannot be seen from here")
    return pid


def _has_open(pid: int, path: Path) -> bool:
    wanted = path.stat()
    with contextlib.suppress(OSError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.path.samestat(file.stat(), wanted):
                    return True
    return False


async def _stop_run(lock: int, folder: Path, say: Callable[[str], None]) -> None:
    if _try_lock(lock):
        return
    pid = _holder(lock, folder)
    steps = (
        (signal.SIGTERM, STOP_SECONDS, "stopped"),
        (signal.SIGTERM, HURRY_SECONDS, "stopped"),  # the second one hurries it
        (signal.SIGKILL, HURRY_SECONDS, "killed"),
    )
    for number, seconds, done in steps:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
        except PermissionError as error:
            raise LocalServerError(f"cannot stop the process with pid {pid}: {error}") from error
        if await _locks_within(lock, seconds):
            say(f"{done} `segmentql up` (pid {pid})")
            return
    raise LocalServerError(f"the process with pid {pid}, which uses {folder}, does not end")


async def _locks_within(lock: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not _try_lock(lock):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


def _programs(folder: Path) -> Iterator[Program]:
    """What a killed run may have left, as far as `stop_orphans` needs to know it."""
    data = DataFolder(folder, None)

    def left(name: str, pid_file: str, executable: str, home: Path | None = None) -> Program:
        return Program(
            name=name,
            command=[executable],
            environment={},
            folder=home,
            pid_file=data.run / f"{pid_file}.pid",
            stop_signal=signal.SIGINT if executable == "postgres" else signal.SIGTERM,
        )

    for name in ("api", "worker", "demo", "migrations", "bucket", "initdb"):
        yield left(name, name, "python")
    yield left("object store", "store", "weed", folder / "store")
    for executable in ("redis-server", "valkey-server"):
        yield left("Redis", "redis", executable, folder / "redis")
    yield left("PostgreSQL", "postgresql", "postgres", folder / "postgres" / "data")


def _delete_files(folder: Path) -> list[Path]:
    """Delete the files, and return those that SegmentQL did not make."""
    for name, signs in SERVER_FOLDERS.items():
        home = folder / name
        if home.is_symlink() or not home.is_dir():
            continue
        is_closed = stat.S_IMODE(home.stat().st_mode) == CLOSED_MODE
        if is_closed and any((home / sign).exists() for sign in signs):
            shutil.rmtree(home)
        else:
            _remove_if_empty(home)
    shutil.rmtree(folder / "run" / "metrics", ignore_errors=True)
    for place, patterns in ((folder, FILES), (folder / "logs", LOG_FILES)):
        _unlink(place, patterns)
    _remove_if_empty(folder / "logs")
    left = [path for path in folder.iterdir() if path.name != "run"]
    _unlink(folder / "run", RUN_FILES)
    _remove_if_empty(folder / "run")
    left += [path for path in (folder / "run",) if path.exists()]
    if not left:
        folder.rmdir()
    return sorted(left)


def _unlink(place: Path, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        for path in place.glob(pattern):
            path.unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()
