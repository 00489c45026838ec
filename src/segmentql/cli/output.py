"""Handling of a closed standard output, as in `segmentql report -o - | head -1`."""

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


class OutputClosed(Exception):
    """The reader of standard output closed the pipe."""


@contextlib.contextmanager
def handle_closed_stdout() -> Iterator[None]:
    """End the process without a message if the reader of its output closed the pipe.

    `git log | head` ends in the same way.

    Python ignores SIGPIPE, and must, because a lost connection to a server would end the process
    as well. So the write fails with an error, and the process sends the signal to itself.

    Raises:
        click.ClickException: another pipe or connection broke.
    """
    try:
        yield
    except OutputClosed:
        _end()
    except BrokenPipeError as error:
        if not _is_stdout_without_reader():  # click ends without a message on any broken pipe
            raise click.ClickException(f"a connection broke: {error.strerror}") from error
        _end()


def _is_stdout_without_reader() -> bool:
    """Return whether standard output is closed, and not a connection."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no poll, or no descriptor: a test's output
        return False


def _end() -> NoReturn:
    # The buffered output can no longer be written, and must not cause a second error at the exit.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    sys.exit(SIGPIPE_STATUS)  # process 1 of a container ignores the default action of the signal
