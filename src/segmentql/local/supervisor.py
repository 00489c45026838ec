"""Starts child processes in order, restarts them, and stops them in the reverse order."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from segmentql.errors import LocalServerError
from segmentql.local.process import ChildProcess
from segmentql.local.program import Program
from segmentql.local.terminal import Status, Step


@dataclass(frozen=True)
class RestartPolicy:
    """The delays between restarts of a child, and the number of restarts.

    A run that ends before `min_uptime_seconds` is short. After `max_short_runs` short runs in a row
    the supervisor gives up, because another restart would not help. A longer run resets the count.
    The delay doubles with each short run after the first.
    """

    min_uptime_seconds: float = 10
    max_short_runs: int = 5
    initial_delay_seconds: float = 0.2
    max_delay_seconds: float = 5
    full_disk_delay_seconds: float = 2
    """The delay before each restart of a child whose disk is full. These restarts are unlimited."""

    def delay_seconds(self, short_runs: int) -> float:
        """Return the delay after a number of short runs in a row, 0 after a longer run."""
        doublings = max(short_runs - 1, 0)
        return min(self.initial_delay_seconds * 2.0**doublings, self.max_delay_seconds)


class Supervisor:
    """The child processes of one run, in the order of their start."""

    def __init__(
        self, print_line: Callable[[Step], None], policy: RestartPolicy = RestartPolicy()
    ) -> None:
        self.force = asyncio.Event()
        """The event that makes `stop` send the force signals immediately."""
        self._print_line = print_line
        self._policy = policy
        self._children: list[ChildProcess] = []
        self._monitors: list[asyncio.Task[None]] = []
        self._has_given_up = asyncio.Event()
        self._error: LocalServerError | None = None

    async def start(self, program: Program) -> None:
        """Start a program, wait until it is ready, and restart it whenever it exits.

        Raises:
            LocalServerError: The program did not start.
        """
        started = time.monotonic()
        child = ChildProcess(program)
        self._children.append(child)
        await child.start()
        self._monitors.append(asyncio.create_task(self._monitor(child)))
        state = f"on {program.address}" if program.address else ""
        self._print_line(Step(program.name, state, time.monotonic() - started))

    async def prepare(self, server: Program | None, task: Program | None = None) -> None:
        """Start a server and then run the task that prepares it.

        Args:
            server: The server. None: an external server, which is running already.
            task: A program that exits by itself. None: no preparation is needed.

        Raises:
            LocalServerError: One of the programs failed.
        """
        if server:
            await self.start(server)
        if task:
            await self.run(task)

    async def run(self, program: Program) -> None:
        """Run a program that exits by itself.

        Raises:
            LocalServerError: The program failed.
        """
        started = time.monotonic()
        await ChildProcess(program).run_to_completion()
        self._print_line(Step(program.name, seconds=time.monotonic() - started))

    async def wait_for_failure(self) -> None:
        """Wait until a child fails permanently.

        Raises:
            LocalServerError: A child died repeatedly.
        """
        await self._has_given_up.wait()
        if self._error:
            raise self._error

    async def stop(self) -> None:
        """Stop all children in the reverse order of their start."""
        for monitor in self._monitors:
            monitor.cancel()
        await asyncio.gather(*self._monitors, return_exceptions=True)
        for child in reversed(self._children):
            started = time.monotonic()
            await child.stop(self.force)
            seconds = time.monotonic() - started
            self._print_line(Step(child.program.name, "stopped", seconds, Status.STOPPED))

    async def _monitor(self, child: ChildProcess) -> None:
        name = child.program.name
        short_runs = 0
        is_full_disk_reported = False
        while True:
            await child.wait()
            uptime_seconds = time.monotonic() - child.launched_at
            is_short = uptime_seconds < self._policy.min_uptime_seconds
            if is_short and (reason := child.full_disk_reason()):
                delay_seconds = self._policy.full_disk_delay_seconds
                if not is_full_disk_reported:
                    state = (
                        f"died ({child.exit_reason()}): {reason}; free some space:"
                        f" restarting every {delay_seconds:g} s"
                    )
                    self._print_line(Step(name, state, status=Status.PROBLEM))
                is_full_disk_reported = True
                await asyncio.sleep(delay_seconds)
                await self._restart(child)
                continue
            is_full_disk_reported = is_full_disk_reported and is_short
            short_runs = short_runs + 1 if is_short else 0
            if short_runs >= self._policy.max_short_runs:
                self._give_up(child, short_runs)
                return
            delay_seconds = self._policy.delay_seconds(short_runs)
            state = f"died ({child.exit_reason()}); restarting in {delay_seconds:g} s"
            self._print_line(Step(name, state, status=Status.PROBLEM))
            await asyncio.sleep(delay_seconds)
            await self._restart(child)

    async def _restart(self, child: ChildProcess) -> None:
        started = time.monotonic()
        # An exit before the child is ready counts like any other. There is no timeout, because the
        # child may wait for another one, such as the API for the database.
        with contextlib.suppress(LocalServerError):
            await child.start(timeout_seconds=float("inf"))
            self._print_line(Step(child.program.name, "restarted", time.monotonic() - started))

    def _give_up(self, child: ChildProcess, short_runs: int) -> None:
        self._error = LocalServerError(
            child.error_message(
                f"died {short_runs} times in a row, each within "
                f"{self._policy.min_uptime_seconds:g} s of its start (last: {child.exit_reason()})"
            )
        )
        self._has_given_up.set()
