"""Find the processes that a killed run left behind, and surely no others.

A process id alone proves nothing: ids are used again. On Linux every process is looked at, so that
children of children are found too; elsewhere those whose id and moment of start were written down.
"""

import contextlib
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

ON_LINUX = platform.system() == "Linux"

# Every child bears it, and its own children inherit it.
MARK = "SEGMENTQL_CHILD"


def find_orphans(executable: str, folder: Path | None, pid_file: Path) -> list[int]:
    """The ids of living processes of the program that `pid_file` names.

    `folder` is for servers, which write over their environment (to show a title): they are known
    by the executable's name and their current folder.
    """
    if ON_LINUX:
        return list(_marked(Path(executable).name, folder, os.fsencode(f"{MARK}={pid_file}")))
    return list(_recorded(pid_file))


def record(pid: int, pid_file: Path) -> None:
    """Write down a process that was just started."""
    moment = "" if ON_LINUX else _started_at(pid)
    pid_file.write_text(f"{pid}\n{moment}")


def _marked(executable: str, folder: Path | None, mark: bytes) -> Iterator[int]:
    for process in Path("/proc").iterdir():
        # They come and go while we look, and those of others are closed to us.
        with contextlib.suppress(OSError):
            if not process.name.isdecimal() or int(process.name) == os.getpid():
                continue
            if folder is None:
                found = mark in (process / "environ").read_bytes().split(b"\0")
            else:
                found = (process / "cwd").readlink() == folder and (
                    # " (deleted)" follows where the program was upgraded meanwhile.
                    (process / "exe").readlink().name.split()[0] == executable
                )
            if found:
                yield int(process.name)


def _recorded(pid_file: Path) -> Iterator[int]:
    if not pid_file.exists():
        return
    pid, moment = pid_file.read_text().split("\n", 1)
    if moment and _started_at(int(pid)) == moment:
        yield int(pid)


def _started_at(pid: int) -> str:
    done = subprocess.run(  # noqa: S603 - a number is all that is passed
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
