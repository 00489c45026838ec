"""One run at a time in a data folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from segmentql.errors import LocalServerError
from segmentql.local.data_dir import DataFolder


@contextmanager
def lock(folder: DataFolder) -> Iterator[None]:
    """Hold the data folder. The system lets go when the process ends, however it ends.

    Raises:
        LocalServerError: another process holds it; the message says which.
    """
    path = folder.run / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode().strip() or "unknown"
            raise LocalServerError(
                f"{folder.path} is in use already, by the process with pid {holder}"
            ) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
