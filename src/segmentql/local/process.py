"""One child process: its start, its readiness, its stop, and the orphans of earlier runs."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
import warnings
from pathlib import Path
from typing import IO

from segmentql.errors import LocalServerError
from segmentql.local.accounts import popen_user_args
from segmentql.local.disk import describe_os_error, full_disk_reason
from segmentql.local.log_files import MAX_LOG_BYTES
from segmentql.local.orphans import CHILD_VARIABLE, find_orphans, write_pid_file
from segmentql.local.process_events import POLL_SECONDS, stop_with_parent, wait_for_exit
from segmentql.local.program import Program

MAX_POLL_SECONDS = 0.25
"""The maximum interval between two readiness probes."""
FORCE_TIMEOUT_SECONDS = 5
"""The time to stop after `Program.force_signal`, and for orphans after each signal."""
REPORTED_LINES = 20
STANDARD_ERROR = 2


class ChildProcess:
    """The process of a program. It can be started again after its exit.

    All methods must be called in the same event loop and thread.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.launched_at = 0.0
        """The monotonic time of the last launch."""
        self._popen: subprocess.Popen[bytes] | None = None
        self._log_offset = 0
        """The size of the log file at the last launch, in bytes."""
        self._start_error = ""
        """The error that prevented the last launch."""

    @property
    def pid(self) -> int | None:
        return self._popen.pid if self._popen and self.exit_status() is None else None

    def exit_status(self) -> int | None:
        """Return the exit code, a signal's negative number, or None if the process is running."""
        return self._popen.poll() if self._popen else 0

    def exit_reason(self) -> str:
        """Return the exit code, the signal or the error of the last start, as text."""
        if self._start_error:
            return self._start_error
        status = self.exit_status() or 0
        if status >= 0:
            return f"exit code {status}"
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-status).name}"
        return f"signal {-status}"

    async def start(self, *, timeout_seconds: float | None = None) -> None:
        """Launch the program and wait until it is ready.

        Args:
            timeout_seconds: The time to become ready. Default: that of the program.

        Raises:
            LocalServerError: The process exited before it was ready, or is not ready in time. In
                the second case it is still running.
        """
        self.launched_at = time.monotonic()  # also for a start that fails before the launch
        self._start_error = ""
        try:
            await self.stop_orphans()
            await self.program.before_start()
            self.launch()
            await self._wait_until_ready(timeout_seconds or self.program.ready_timeout_seconds)
            await self.program.after_ready()
        except OSError as error:
            self._start_error = str(error)
            reason = describe_os_error(error, self.program.pid_file.parent)
            raise LocalServerError(f"cannot start {self.program.name}: {reason}") from error

    def launch(self) -> None:
        """Launch the process without waiting until it is ready."""
        program = self.program
        self.launched_at = time.monotonic()
        with contextlib.ExitStack() as stack, warnings.catch_warnings():
            # Python 3.12 warns of every fork in a process with threads. The code that runs in the
            # child calls only two functions of libc.
            warnings.simplefilter("ignore", DeprecationWarning)
            log = stack.enter_context(_open_log(program.log_file)) if program.log_file else None
            self._log_offset = os.fstat(log.fileno()).st_size if log else 0
            try:
                self._popen = subprocess.Popen(  # noqa: S603 - the commands are our own
                    list(program.command),
                    cwd=program.working_folder,
                    env={**program.environment, CHILD_VARIABLE: str(program.pid_file)},
                    stdin=subprocess.DEVNULL,
                    stdout=STANDARD_ERROR if log and program.show_errors else log,
                    stderr=log,
                    # The terminal sends Ctrl-C to this process only, which stops the children in
                    # order.
                    start_new_session=True,
                    preexec_fn=stop_with_parent(program.stop_signal),  # noqa: PLW1509
                    **popen_user_args(program.account),
                )
            except (OSError, subprocess.SubprocessError) as error:
                raise LocalServerError(f"cannot start {program.name}: {error}") from error
        # The program may run on a full disk. Linux finds it without the file.
        with contextlib.suppress(OSError):
            write_pid_file(self._popen.pid, program.pid_file)

    async def wait(self) -> int:
        """Wait for the exit of the process, kill the rest of its group, and return its status."""
        while (status := self.exit_status()) is None:
            if self._popen:
                await wait_for_exit(self._popen.pid)
        self._kill_group()
        return status

    async def run_to_completion(self) -> None:
        """Run a program that exits by itself. A cancellation stops it.

        Raises:
            LocalServerError: The program failed.
        """
        self.launch()
        try:
            if await self.wait() != 0:
                raise LocalServerError(self.error_message(f"failed ({self.exit_reason()})"))
        finally:
            await self.stop()

    async def stop(self, force: asyncio.Event | None = None) -> None:
        """Stop the process by its stop signal, then by its force signal, then by SIGKILL.

        Args:
            force: When this event is set, the force signal is sent immediately.
        """
        program = self.program
        await self._signal_and_wait(program.stop_signal, program.stop_timeout_seconds, force)
        await self._signal_and_wait(program.force_signal, FORCE_TIMEOUT_SECONDS, None)
        await self.kill()
        await self.stop_orphans()
        await program.after_stop()

    async def kill(self) -> None:
        """Kill the process, as in a crash."""
        await self._signal_and_wait(signal.SIGKILL, None, None)
        self.program.pid_file.unlink(missing_ok=True)

    async def stop_orphans(self) -> None:
        """Stop the processes of the program that an earlier run left running.

        Raises:
            LocalServerError: A process does not exit.
        """
        program = self.program
        # A server of an earlier run may still write its data. A process of the same run that
        # outlived its group leader, or a process of SegmentQL itself, has no data to lose.
        may_write_data = program.working_folder is not None and self._popen is None
        stop_timeout_seconds = (
            program.stop_timeout_seconds if may_write_data else FORCE_TIMEOUT_SECONDS
        )
        for number, timeout_seconds in (
            (program.stop_signal, stop_timeout_seconds),
            (signal.SIGKILL, FORCE_TIMEOUT_SECONDS),
        ):
            deadline = time.monotonic() + timeout_seconds
            orphans = self._find_orphans()
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            while orphans and time.monotonic() < deadline:
                await asyncio.sleep(POLL_SECONDS)
                orphans = self._find_orphans()
            if not orphans:
                return
        raise LocalServerError(
            f"{program.name} of an earlier run does not exit: process ids {orphans}"
        )

    def last_lines(self) -> list[str]:
        """Return the last lines that the process wrote to its log file since the last launch."""
        return self._logged_lines()[-REPORTED_LINES:]

    def full_disk_reason(self) -> str | None:
        """Return the cause and the free space if the program's disk is full, or else None."""
        output = "\n".join([*self._logged_lines(), self._start_error])
        folders = [self.program.pid_file.parent, self.program.working_folder]
        reasons = (full_disk_reason(folder, output) for folder in folders if folder)
        return next((reason for reason in reasons if reason), None)

    def error_message(self, problem: str) -> str:
        """Return an error message with the last lines of the log.

        Args:
            problem: The predicate of the message, such as "did not start".
        """
        lines = [f"{self.program.name} {problem}"]
        if reason := self.full_disk_reason():
            lines.append(reason)
        if self.program.log_file is None:
            lines.append("its last lines are above")
        elif last_lines := self.last_lines():
            lines += [
                f"the end of {self.program.log_file}:",
                *(f"    {line}" for line in last_lines),
            ]
        return "\n".join(lines)

    def _logged_lines(self) -> list[str]:
        if self.program.log_file is None or not self.program.log_file.exists():
            return []
        with self.program.log_file.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # A file smaller than at the launch was truncated: all of it is from this launch.
            file.seek(max(0 if size < self._log_offset else self._log_offset, size - 64 * 1024))
            return file.read().decode(errors="replace").splitlines()

    def _find_orphans(self) -> list[int]:
        program = self.program
        return find_orphans(program.command[0], program.working_folder, program.pid_file)

    async def _wait_until_ready(self, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        interval_seconds = POLL_SECONDS
        while True:
            if self.exit_status() is not None:
                raise LocalServerError(self.error_message(f"did not start ({self.exit_reason()})"))
            is_ready = await self.program.is_ready()
            # Some clients swallow a cancellation while they connect.
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError
            if is_ready:
                return
            if time.monotonic() > deadline:
                raise LocalServerError(
                    self.error_message(f"was not ready within {timeout_seconds:g} s")
                )
            await asyncio.sleep(interval_seconds)
            interval_seconds = min(interval_seconds * 1.2, MAX_POLL_SECONDS)

    async def _signal_and_wait(
        self, number: signal.Signals, timeout_seconds: float | None, force: asyncio.Event | None
    ) -> None:
        if self._popen is None or self.exit_status() is not None:
            return
        self._popen.send_signal(number)
        deadline = time.monotonic() + (timeout_seconds or float("inf"))
        while self.exit_status() is None:
            if time.monotonic() > deadline or (force and force.is_set()):
                return
            await asyncio.sleep(POLL_SECONDS)
        self._kill_group()

    def _kill_group(self) -> None:
        # No other process stops the members of the group after the exit of their leader.
        if self._popen:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)


def _open_log(path: Path) -> IO[bytes]:
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_suffix(".old.log"))
    return path.open("ab")
