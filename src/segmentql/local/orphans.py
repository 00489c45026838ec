"""Finds the processes that a killed run left running.

A process id alone does not identify a process, because the system reuses ids. On Linux all
processes are searched, so that grandchildren are found too. On other systems only the processes
are found whose id and start time were recorded.
"""

import contextlib
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

ON_LINUX = platform.system() == "Linux"

CHILD_VARIABLE = "SEGMENTQL_CHILD"
"""The environment variable that marks each child process with the path of its PID file. Its own
children inherit the variable."""


def find_orphans(executable: str, working_folder: Path | None, pid_file: Path) -> list[int]:
    """Return the ids of the living processes of a program.

    Args:
        executable: The path of the program's executable file.
        working_folder: The working folder of a server, because servers overwrite their environment
            to show a title: they are identified by the executable's name and the working folder.
            None for a program that keeps its environment.
        pid_file: The program's PID file.
    """
    if ON_LINUX:
        mark = os.fsencode(f"{CHILD_VARIABLE}={pid_file}")
        return list(_find_in_proc(Path(executable).name, working_folder, mark))
    return list(_find_recorded(pid_file))


def write_pid_file(pid: int, pid_file: Path) -> None:
    """Record a process that has just been started."""
    start_time = "" if ON_LINUX else _start_time(pid)
    pid_file.write_text(f"{pid}\n{start_time}")


def _find_in_proc(executable: str, working_folder: Path | None, mark: bytes) -> Iterator[int]:
    for process in Path("/proc").iterdir():
        # A process may end during the search, and those of other accounts cannot be read.
        with contextlib.suppress(OSError):
            if not process.name.isdecimal() or int(process.name) == os.getpid():
                continue
            if working_folder is None:
                is_orphan = mark in (process / "environ").read_bytes().split(b"\0")
            else:
                is_orphan = (process / "cwd").readlink() == working_folder and (
                    # " (deleted)" follows if the program was upgraded meanwhile.
                    (process / "exe").readlink().name.split()[0] == executable
                )
            if is_orphan:
                yield int(process.name)


def _find_recorded(pid_file: Path) -> Iterator[int]:
    if not pid_file.exists():
        return
    pid, start_time = pid_file.read_text().split("\n", 1)
    if start_time and _start_time(int(pid)) == start_time:
        yield int(pid)


def _start_time(pid: int) -> str:
    completed = subprocess.run(  # noqa: S603 - the only argument is a number
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return completed.stdout.strip()
