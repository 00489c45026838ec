"""The description of a program that runs as a child process."""

import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segmentql.local.accounts import Account


async def _do_nothing() -> None:
    pass


async def _always_ready() -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program to run as a child process, such as PostgreSQL or the worker."""

    name: str
    """The name in messages."""
    command: Sequence[str]
    is_ready: Callable[[], Awaitable[bool]] = _always_ready
    """The readiness probe. It is called repeatedly while the process runs, and raises an error only
    if the process cannot become ready."""
    before_start: Callable[[], Awaitable[None]] = _do_nothing
    """The action before each start. It must be idempotent."""
    after_ready: Callable[[], Awaitable[None]] = _do_nothing
    """The action each time the program becomes ready. It must be idempotent."""
    after_stop: Callable[[], Awaitable[None]] = _do_nothing
    """The action after a stop. It does not run if SegmentQL itself is killed."""
    ready_timeout_seconds: float = 60
    """The time to become ready at the first start. Restarts by the supervisor have no limit."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_seconds: float = 30
    """The time to stop before `force_signal` is sent."""
    force_signal: signal.Signals = signal.SIGKILL
    environment: Mapping[str, str] = field(repr=False)
    """The complete environment: no variable is inherited."""
    account: Account | None = None
    """The account that runs the program. None: the current account."""
    working_folder: Path | None = None
    """The working folder of all processes of the program. None: the current one."""
    log_file: Path | None = None
    """The file that receives the output. None: the output of this process."""
    show_errors: bool = False
    """Whether the standard output of a program with a log file goes to the standard error of this
    process. For a program that prints its errors to standard output and the rest to standard
    error."""
    pid_file: Path
    """The file with the process id while the program runs. Its path identifies the program among
    all processes of this machine."""
    address: str = ""
    """The address of the server in messages."""
