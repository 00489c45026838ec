"""One child process: started, waited for, stopped, and found again after a crash of ours."""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from segmentql.errors import LocalServerError
from segmentql.local.accounts import Account, popen_user_args
from segmentql.local.disk import explained, full_disk
from segmentql.local.log_files import LOG_BYTES
from segmentql.local.orphans import MARK, ON_LINUX, find_orphans, record

POLL_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.25
HURRY_SECONDS = 5
LAST_LINES = 20
PR_SET_PDEATHSIG = 1
STANDARD_ERROR = 2


async def _nothing() -> None:
    """What a program needs before its start, after it, or after its stop, mostly."""


async def _at_once() -> bool:
    """The readiness of a program that cannot be asked."""
    return True


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program to run as a child: all that is particular to PostgreSQL, the worker, ...

    `before_start` and `after_ready` run at each start: they are idempotent. `ready` is asked again
    and again while the process lives; it raises only where asking on is useless. `after_stop` is
    missed where we are killed.
    """

    name: str
    command: Sequence[str]
    ready: Callable[[], Awaitable[bool]] = _at_once
    before_start: Callable[[], Awaitable[None]] = _nothing
    after_ready: Callable[[], Awaitable[None]] = _nothing
    after_stop: Callable[[], Awaitable[None]] = _nothing
    ready_seconds: float = 60
    """How long a first start may take."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 30
    """How long a stop may take before `hurry_signal` is sent."""
    hurry_signal: signal.Signals = signal.SIGKILL
    environment: Mapping[str, str] = field(repr=False)
    """All of it: nothing is inherited."""
    account: Account | None = None
    folder: Path | None = None
    """The current folder of all of its processes; None: ours."""
    log: Path | None = None
    """Where its output goes; None: where ours goes."""
    show_errors: bool = False
    """Whether the standard output of a program with a log is our standard error instead: for a
    program that prints its errors there and everything else to standard error."""
    pid_file: Path
    """Names the program among all on this machine, and holds its process' id while it runs."""
    address: str = ""


class ChildProcess:
    """A program's process, now or between two lives. Made and used on one thread's event loop."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.launched_at = 0.0
        """The monotonic time of the last launch."""
        self._popen: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        """The size of the log file at the last launch."""
        self._start_fault = ""
        """Why the last start did not come to a launch."""

    @property
    def pid(self) -> int | None:
        return self._popen.pid if self._popen and self.exit_status() is None else None

    def exit_status(self) -> int | None:
        """How the last life ended: an exit code, or a signal's number negated; None: it lives."""
        return self._popen.poll() if self._popen else 0

    def why_it_died(self) -> str:
        if self._start_fault:
            return self._start_fault
        status = self.exit_status() or 0
        if status >= 0:
            return f"exit code {status}"
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-status).name}"
        return f"signal {-status}"

    async def start(self, *, patience_seconds: float | None = None) -> None:
        """Launch the program and wait until it is ready.

        Raises:
            LocalServerError: it died first, or is not ready in time (it is then still running).
        """
        self.launched_at = time.monotonic()  # a start that fails before the launch counts as well
        self._start_fault = ""
        try:
            await self.stop_orphans()
            await self.program.before_start()
            self.launch()
            await self._wait_until_ready(patience_seconds or self.program.ready_seconds)
            await self.program.after_ready()
        except OSError as error:
            self._start_fault = str(error)
            why = explained(error, self.program.pid_file.parent)
            raise LocalServerError(f"cannot start {self.program.name}: {why}") from error

    def launch(self) -> None:
        """Start the process; it need not be ready."""
        program = self.program
        self.launched_at = time.monotonic()
        with contextlib.ExitStack() as stack, warnings.catch_warnings():
            # Python 3.12 warns of every fork beside threads; what runs in the child calls only
            # two functions of libc.
            warnings.simplefilter("ignore", DeprecationWarning)
            log = stack.enter_context(_open_log(program.log)) if program.log else None
            self._log_start = os.fstat(log.fileno()).st_size if log else 0
            try:
                self._popen = subprocess.Popen(  # noqa: S603 - commands of ours
                    list(program.command),
                    cwd=program.folder,
                    env={**program.environment, MARK: str(program.pid_file)},
                    stdin=subprocess.DEVNULL,
                    stdout=STANDARD_ERROR if log and program.show_errors else log,
                    stderr=log,
                    # A terminal's Ctrl-C is for us alone: children are stopped in order.
                    start_new_session=True,
                    preexec_fn=_die_with_parent(program.stop_signal),  # noqa: PLW1509
                    **popen_user_args(program.account),
                )
            except (OSError, subprocess.SubprocessError) as error:
                raise LocalServerError(f"cannot start {program.name}: {error}") from error
        # On a full disk the program may run nevertheless. Linux finds it without the file.
        with contextlib.suppress(OSError):
            record(self._popen.pid, program.pid_file)

    async def exited(self) -> int:
        """Wait for the end of the process, and end what it left of its group."""
        while (status := self.exit_status()) is None:
            if self._popen:
                await _wait_for_exit(self._popen.pid)
        self._end_group()
        return status

    async def run_to_end(self) -> None:
        """Run a program that ends by itself; stopped when this is cancelled.

        Raises:
            LocalServerError: it failed.
        """
        self.launch()
        try:
            if await self.exited() != 0:
                raise LocalServerError(self.report(f"failed ({self.why_it_died()})"))
        finally:
            await self.stop()

    async def stop(self, hurry: asyncio.Event | None = None) -> None:
        """Stop the process by its own signal, then by ever harder ones; `hurry` skips the wait."""
        program = self.program
        await self._end_by(program.stop_signal, program.stop_seconds, hurry)
        await self._end_by(program.hurry_signal, HURRY_SECONDS, None)
        await self.kill()
        await self.stop_orphans()
        await program.after_stop()

    async def kill(self) -> None:
        """End the process at once, as a crash would."""
        await self._end_by(signal.SIGKILL, None, None)
        self.program.pid_file.unlink(missing_ok=True)

    async def stop_orphans(self) -> None:
        """Stop what an earlier life of the program left running."""
        program = self.program
        # A server of an earlier run still writes its data. What outlived the head of its own
        # group, or is a process of ours, has nothing that would be lost.
        whole = program.folder is not None and self._popen is None
        polite_seconds = program.stop_seconds if whole else HURRY_SECONDS
        for number, patience_seconds in (
            (program.stop_signal, polite_seconds),
            (signal.SIGKILL, HURRY_SECONDS),
        ):
            deadline = time.monotonic() + patience_seconds
            orphans = self._find_orphans()
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            while orphans and time.monotonic() < deadline:
                await asyncio.sleep(POLL_SECONDS)
                orphans = self._find_orphans()
            if not orphans:
                return
        raise LocalServerError(f"{program.name} of an earlier run does not end: {orphans}")

    def last_lines(self) -> list[str]:
        """Return the end of what this launch wrote to its log file, if it has one."""
        return self._logged_lines()[-LAST_LINES:]

    def full_disk(self) -> str | None:
        """The cause and the free space, if the program has no room on its disk."""
        said = "\n".join([*self._logged_lines(), self._start_fault])
        folders = [self.program.pid_file.parent, self.program.folder]
        causes = (full_disk(folder, said) for folder in folders if folder)
        return next((cause for cause in causes if cause), None)

    def _logged_lines(self) -> list[str]:
        if self.program.log is None or not self.program.log.exists():
            return []
        with self.program.log.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # If the file was cut since the launch, all of it is of this launch.
            file.seek(max(0 if size < self._log_start else self._log_start, size - 64 * 1024))
            return file.read().decode(errors="replace").splitlines()

    def _find_orphans(self) -> list[int]:
        program = self.program
        return find_orphans(program.command[0], program.folder, program.pid_file)

    async def _wait_until_ready(self, patience_seconds: float) -> None:
        deadline = time.monotonic() + patience_seconds
        pause_seconds = POLL_SECONDS
        while True:
            if self.exit_status() is not None:
                raise LocalServerError(self.report(f"did not start ({self.why_it_died()})"))
            is_ready = await self.program.ready()
            # Clients have been seen to swallow a cancellation while they connect.
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError
            if is_ready:
                return
            if time.monotonic() > deadline:
                raise LocalServerError(self.report(f"was not ready within {patience_seconds:g} s"))
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 1.2, LONGEST_PAUSE_SECONDS)

    async def _end_by(
        self, number: signal.Signals, patience_seconds: float | None, hurry: asyncio.Event | None
    ) -> None:
        if self._popen is None or self.exit_status() is not None:
            return
        self._popen.send_signal(number)
        deadline = time.monotonic() + (patience_seconds or float("inf"))
        while self.exit_status() is None:
            if time.monotonic() > deadline or (hurry and hurry.is_set()):
                return
            await asyncio.sleep(POLL_SECONDS)
        self._end_group()

    def _end_group(self) -> None:
        # What outlives the head of its group has lost the one who would stop it.
        if self._popen:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)

    def report(self, what: str) -> str:
        """What happened to the process, with the last lines that it said."""
        lines = [f"{self.program.name} {what}"]
        if cause := self.full_disk():
            lines.append(cause)
        if self.program.log is None:
            lines.append("its last lines are above")
        elif last := self.last_lines():
            lines += [f"the end of {self.program.log}:", *(f"    {line}" for line in last)]
        return "\n".join(lines)


async def _wait_for_exit(pid: int) -> None:
    """Wait until a child may have ended: on Linux without polling, elsewhere for a short time."""
    descriptor = _exit_descriptor(pid)
    if descriptor is None:
        await asyncio.sleep(POLL_SECONDS)
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _exit_descriptor(pid: int) -> int | None:
    """Return a descriptor that is readable once a child has ended; None if there is none."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # an old kernel, or a sandbox that forbids it
        return None


def _open_log(path: Path) -> IO[bytes]:
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".old.log"))
    return path.open("ab")


def _die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """What a child does before it becomes its program: ask Linux for a signal when we are killed.

    Elsewhere a child outlives a killed parent until the next start finds it.
    """
    if not ON_LINUX:
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # it was killed before we asked
            os._exit(1)

    return ask
