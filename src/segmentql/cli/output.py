"""Standard output whose reader goes away: `segmentql report -o - | head -1`."""

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator
from typing import Final, NoReturn

import click

SIGPIPE_STATUS: Final = 141
"""The status that a shell shows for a process that SIGPIPE ended: 128 + 13."""


class ReaderGone(Exception):
    """The reader of what a command writes does not want any more of it."""


@contextlib.contextmanager
def quiet_without_reader() -> Iterator[None]:
    """End the process without a word, as `git log | head` ends, if nobody reads its output.

    Python ignores SIGPIPE, and must, because a lost connection to a server would end the process
    as well. So the write fails with an error, and the process sends the signal to itself.

    Raises:
        click.ClickException: another pipe or connection broke.
    """
    try:
        yield
    except ReaderGone:
        _end()
    except BrokenPipeError as error:
        if not _is_stdout_without_reader():  # click would end without a word on any broken pipe
            raise click.ClickException(f"a connection broke: {error.strerror}") from error
        _end()


def _is_stdout_without_reader() -> bool:
    """Whether it is standard output that broke, and not a connection."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no poll, or no descriptor: a test's output
        return False


def _end() -> NoReturn:
    # What is still buffered has no reader, and must not fail once more at the exit.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    sys.exit(SIGPIPE_STATUS)  # process 1 of a container outlives the signal
