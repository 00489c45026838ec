"""Rotates the log files of a data folder while the programs write to them."""

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

CHECK_SECONDS = 10.0
"""The interval between two checks of the file sizes."""
MAX_LOG_BYTES = 16 * 1024 * 1024
"""The size above which a log file is rotated. Each program uses at most twice as much on the disk,
and what it writes within `CHECK_SECONDS`."""


async def rotate_logs(
    folder: Path, *, max_bytes: int = MAX_LOG_BYTES, check_seconds: float = CHECK_SECONDS
) -> None:
    """Rotate the large log files of a folder at regular intervals, until cancelled.

    A check reads the sizes of about eight files.
    """
    while True:
        await asyncio.sleep(check_seconds)
        await asyncio.to_thread(_rotate_large_files, folder, max_bytes)


def _rotate_large_files(folder: Path, max_bytes: int) -> None:
    for path in folder.glob("*.log"):
        with contextlib.suppress(FileNotFoundError):
            if not path.name.endswith(".old.log") and path.stat().st_size > max_bytes:
                copy_and_truncate(path)


def copy_and_truncate(path: Path) -> None:
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
