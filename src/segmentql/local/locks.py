"""The lock that allows one run at a time in a data folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from segmentql.errors import LocalServerError
from segmentql.local.data_dir import DataFolder


@contextmanager
def lock(data: DataFolder) -> Iterator[None]:
    """Lock the data folder. The system releases the lock when the process ends for any reason.

    Raises:
        LocalServerError: Another process holds the lock. The message has its process id.
    """
    descriptor = os.open(data.run_folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode().strip() or "unknown"
            raise LocalServerError(
                f"{data.path} is already in use by the process with pid {holder}"
            ) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
