"""Deletes a data folder: stops its run, and deletes only the files that SegmentQL created."""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from segmentql.errors import LocalServerError
from segmentql.local.data_dir import DataFolder, fallback_folder
from segmentql.local.orphans import ON_LINUX
from segmentql.local.process import ChildProcess
from segmentql.local.program import Program
from segmentql.local.store import remove_sockets

STOP_TIMEOUT_SECONDS: Final = 60.0
"""The time for a running `segmentql up` to stop after the first SIGTERM."""
FORCE_TIMEOUT_SECONDS: Final = 20.0
"""The time for it to stop after the second SIGTERM, and after SIGKILL."""
POLL_SECONDS: Final = 0.1

PRIVATE_MODE: Final = 0o700
"""The mode of a server's folder."""
FILES: Final = ("secrets.json", ".secrets.json.part", "ports.json", ".ports.json.part")
RUN_FILES: Final = ("*.pid", "settings.json", ".*.part", "store.ports", "lock")
"""The lock is deleted last, so that no other run starts before."""
LOG_FILES: Final = ("*.log",)
SERVER_FOLDERS: Final = {
    "postgres": ("data", "data.part", "password"),
    "redis": ("redis.conf",),
    "store": ("s3.json",),
}
"""The folders of the servers. A used folder contains at least one of the listed files."""


def find_data_folders(data_dir: Path) -> list[Path]:
    """Return the data folders of a `--data-dir`: the folder itself and its fallback folder.

    Raises:
        LocalServerError: The folder exists, but it is not a data folder.
    """
    path = data_dir.resolve()
    try:
        folders = [
            folder
            for folder in (path, fallback_folder(path))
            if (folder / "run" / "lock").is_file()
        ]
        if not folders and path.exists():
            raise LocalServerError(
                f"{path} is not a data folder of SegmentQL: it has no file run/lock"
            )
    except PermissionError as error:
        raise LocalServerError(f"cannot read {path}: {error}") from error
    return folders


def find_running_pid(folder: Path) -> int | None:
    """Return the id of the process that uses a data folder, or None."""
    with _open_lock(folder) as lock:
        return None if _try_lock(lock) else _lock_holder(lock, folder)


async def delete_data_folder(folder: Path, print_line: Callable[[str], None]) -> None:
    """Stop the processes that use a data folder, and delete the files that SegmentQL created.

    Raises:
        LocalServerError: A process does not exit, or a file cannot be deleted.
    """
    with _open_lock(folder) as lock:
        await _stop_run(lock, folder, print_line)
        for program in _possible_orphans(folder):
            await ChildProcess(program).stop_orphans()
        remove_sockets(folder / "run")
        try:
            remaining = _delete_files(folder)
        except OSError as error:
            raise LocalServerError(f"cannot delete {folder}: {error}") from error
    if remaining:
        names = ", ".join(str(path.relative_to(folder)) for path in remaining)
        print_line(
            f"deleted the data in {folder}, except files that SegmentQL did not create: {names}"
        )
    else:
        print_line(f"deleted {folder}")


@contextlib.contextmanager
def _open_lock(folder: Path) -> Iterator[int]:
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


def _lock_holder(descriptor: int, folder: Path) -> int:
    """Return the id of the process that holds the lock.

    Raises:
        LocalServerError: The process is not visible here: it may run in a container.
    """
    text = os.pread(descriptor, 20, 0).decode().strip()
    pid = int(text) if text.isdecimal() else 0
    lock = folder / "run" / "lock"
    if not pid or (ON_LINUX and not _has_open_file(pid, lock)):
        raise LocalServerError(f"{folder} is in use by a process that is not visible from here")
    return pid


def _has_open_file(pid: int, path: Path) -> bool:
    status = path.stat()
    with contextlib.suppress(OSError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.path.samestat(file.stat(), status):
                    return True
    return False


async def _stop_run(lock: int, folder: Path, print_line: Callable[[str], None]) -> None:
    if _try_lock(lock):
        return
    pid = _lock_holder(lock, folder)
    steps = (
        (signal.SIGTERM, STOP_TIMEOUT_SECONDS, "stopped"),
        (signal.SIGTERM, FORCE_TIMEOUT_SECONDS, "stopped"),  # the second signal forces the stop
        (signal.SIGKILL, FORCE_TIMEOUT_SECONDS, "killed"),
    )
    for number, timeout_seconds, result in steps:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
        except PermissionError as error:
            raise LocalServerError(f"cannot stop the process with pid {pid}: {error}") from error
        if await _wait_for_lock(lock, timeout_seconds):
            print_line(f"{result} `segmentql up` (pid {pid})")
            return
    raise LocalServerError(f"the process with pid {pid}, which uses {folder}, does not exit")


async def _wait_for_lock(lock: int, timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while not _try_lock(lock):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


def _possible_orphans(folder: Path) -> Iterator[Program]:
    """Yield the programs that a killed run may have left, with the fields for `stop_orphans`."""
    data = DataFolder(folder, None)

    def orphan(
        name: str, pid_file: str, executable: str, working_folder: Path | None = None
    ) -> Program:
        return Program(
            name=name,
            command=[executable],
            environment={},
            working_folder=working_folder,
            pid_file=data.run_folder / f"{pid_file}.pid",
            stop_signal=signal.SIGINT if executable == "postgres" else signal.SIGTERM,
        )

    for name in ("api", "worker", "demo", "migrations", "bucket", "initdb"):
        yield orphan(name, name, "python")
    yield orphan("object store", "store", "weed", folder / "store")
    for executable in ("redis-server", "valkey-server"):
        yield orphan("Redis", "redis", executable, folder / "redis")
    yield orphan("PostgreSQL", "postgresql", "postgres", folder / "postgres" / "data")


def _delete_files(folder: Path) -> list[Path]:
    """Delete the files of SegmentQL, and return the other ones."""
    for name, known_files in SERVER_FOLDERS.items():
        server_folder = folder / name
        if server_folder.is_symlink() or not server_folder.is_dir():
            continue
        is_private = stat.S_IMODE(server_folder.stat().st_mode) == PRIVATE_MODE
        if is_private and any((server_folder / file).exists() for file in known_files):
            shutil.rmtree(server_folder)
        else:
            _remove_if_empty(server_folder)
    shutil.rmtree(folder / "run" / "metrics", ignore_errors=True)
    for parent, patterns in ((folder, FILES), (folder / "logs", LOG_FILES)):
        _delete_matching(parent, patterns)
    _remove_if_empty(folder / "logs")
    remaining = [path for path in folder.iterdir() if path.name != "run"]
    _delete_matching(folder / "run", RUN_FILES)
    _remove_if_empty(folder / "run")
    remaining += [path for path in (folder / "run",) if path.exists()]
    if not remaining:
        folder.rmdir()
    return sorted(remaining)


def _delete_matching(folder: Path, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()
