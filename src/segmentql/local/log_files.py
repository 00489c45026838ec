"""The log files of a data folder are kept short while the programs go on writing to them."""

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

CHECK_SECONDS = 10.0
LOG_BYTES = 16 * 1024 * 1024
"""A log file is cut if it is larger. The disk holds at most two such files of each program, and
what the program writes within `CHECK_SECONDS`."""


async def keep_short(
    folder: Path, *, log_bytes: int = LOG_BYTES, check_seconds: float = CHECK_SECONDS
) -> None:
    """Cut the log files of a folder whenever they are too large, until cancelled.

    A check reads the sizes of about eight files.
    """
    while True:
        await asyncio.sleep(check_seconds)
        await asyncio.to_thread(_cut_large, folder, log_bytes)


def _cut_large(folder: Path, log_bytes: int) -> None:
    for path in folder.glob("*.log"):
        with contextlib.suppress(FileNotFoundError):
            if not path.name.endswith(".old.log") and path.stat().st_size > log_bytes:
                cut(path)


def cut(path: Path) -> None:
    """Move the content of a log file to `<name>.old.log`, and leave the file empty.

    The programs keep the file open and append to it, so its content is copied and the file is
    truncated. Lines that are written between the copy and the truncation are lost. If the disk is
    full, the content is lost.
    """
    old = path.with_suffix(".old.log")
    try:
        shutil.copyfile(path, old)
    except OSError:
        old.unlink(missing_ok=True)
    os.truncate(path, 0)
