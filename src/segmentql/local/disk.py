"""Whether a disk is full, which explains most of what then fails."""

import errno
import shutil
from pathlib import Path
from typing import Final

MIB: Final = 1024 * 1024

LOW_BYTES: Final = 20 * MIB
"""With less than this free, PostgreSQL may not find room for the next 16 MiB of its log."""

NO_SPACE: Final = "no space left on device"
SIGNS: Final = (NO_SPACE, "disk quota exceeded")
ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def full_disk(folder: Path, said: str = "") -> str | None:
    """The cause and the free space, if the disk of `folder` is full; None if it is not.

    Args:
        said: what a program that failed printed; on a full disk it is often missing.
    """
    while not folder.exists():
        folder = folder.parent
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    signs = [sign for sign in SIGNS if sign in said.lower()]
    if not signs and usage.free >= LOW_BYTES:
        return None
    return (
        f"{signs[0] if signs else NO_SPACE}: {usage.free / MIB:.1f} MiB free"
        f" of {usage.total / MIB:.0f} MiB at {folder}"
    )


def explained(error: OSError, folder: Path) -> str:
    """An error of the system, with the free space if the disk is full."""
    cause = full_disk(folder, str(error)) if error.errno in ERRORS else None
    name = f" ({error.filename})" if error.filename and cause else ""
    return f"{cause}{name}" if cause else str(error)
