"""Waits for the exit of a child process, and stops a child when its parent is killed."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable

from segmentql.local.orphans import ON_LINUX

POLL_SECONDS = 0.02
"""The polling interval on systems that do not report an exit."""
PR_SET_PDEATHSIG = 1
"""The operation of prctl(2) that sets the signal for the death of the parent process."""


async def wait_for_exit(pid: int) -> None:
    """Wait until a child process may have exited.

    On Linux this waits for the exit without polling. On other systems it waits `POLL_SECONDS`.
    """
    descriptor = _open_pidfd(pid)
    if descriptor is None:
        await asyncio.sleep(POLL_SECONDS)
        return
    loop = asyncio.get_running_loop()
    has_exited = asyncio.Event()
    loop.add_reader(descriptor, has_exited.set)
    try:
        await has_exited.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _open_pidfd(pid: int) -> int | None:
    """Return a descriptor that becomes readable when the child exits, or None if unsupported."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # an old kernel, or a sandbox that forbids it
        return None


def stop_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Return a function for the child to call before it executes its program.

    It makes Linux send the signal to the child when this process is killed. On other systems there
    is no such function: the child keeps running until the next start finds it.
    """
    if not ON_LINUX:
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def set_signal() -> None:
        prctl(PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # the parent was killed before the call
            os._exit(1)

    return set_signal
