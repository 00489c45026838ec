"""Detects a full disk, which is the cause of most errors that then follow."""

import errno
import shutil
from pathlib import Path
from typing import Final

MIB: Final = 1024 * 1024

MIN_FREE_BYTES: Final = 20 * MIB
"""Free space below which PostgreSQL may not find room for the next 16 MiB of its log."""

NO_SPACE: Final = "no space left on device"
FULL_DISK_MESSAGES: Final = (NO_SPACE, "disk quota exceeded")
FULL_DISK_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def full_disk_reason(folder: Path, output: str = "") -> str | None:
    """Return the cause and the free space if the disk of `folder` is full, or else None.

    Args:
        folder: A folder, which need not exist yet.
        output: The output of a program that failed. On a full disk it is often missing.
    """
    while not folder.exists():
        folder = folder.parent
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    messages = [message for message in FULL_DISK_MESSAGES if message in output.lower()]
    if not messages and usage.free >= MIN_FREE_BYTES:
        return None
    return (
        f"{messages[0] if messages else NO_SPACE}: {usage.free / MIB:.1f} MiB free"
        f" of {usage.total / MIB:.0f} MiB at {folder}"
    )


def describe_os_error(error: OSError, folder: Path) -> str:
    """Return the text of a system error, with the free space if the disk is full."""
    reason = full_disk_reason(folder, str(error)) if error.errno in FULL_DISK_ERRORS else None
    name = f" ({error.filename})" if error.filename and reason else ""
    return f"{reason}{name}" if reason else str(error)
