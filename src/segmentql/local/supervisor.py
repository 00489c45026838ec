"""Start child processes in order, keep them running, and stop them in the reverse order."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from segmentql.errors import LocalServerError
from segmentql.local.process import ChildProcess, Program
from segmentql.local.terminal import Step, Tone


@dataclass(frozen=True)
class RestartPolicy:
    """When to restart a child and when to give up.

    A life is short when it ends soon after its start. That many short lives in a row are a fault
    that restarting does not mend; one longer life begins a new count. The delay doubles with each
    short life.
    """

    short_life_seconds: float = 10
    short_lives: int = 5
    first_delay_seconds: float = 0.2
    longest_delay_seconds: float = 5
    full_disk_delay_seconds: float = 2
    """A child without room on its disk is restarted this often, for as long as it takes."""

    def delay_seconds(self, short_lives: int) -> float:
        return min(self.first_delay_seconds * 2.0 ** (short_lives - 1), self.longest_delay_seconds)


class Supervisor:
    """The children of one run, in the order of their start."""

    def __init__(
        self, say: Callable[[Step], None], policy: RestartPolicy = RestartPolicy()
    ) -> None:
        self.hurry = asyncio.Event()
        """Set it to stop without patience."""
        self._say = say
        self._policy = policy
        self._children: list[ChildProcess] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._given_up = asyncio.Event()
        self._fault: LocalServerError | None = None

    async def start(self, program: Program) -> None:
        """Start a program, wait until it is ready, and keep it running from then on.

        Raises:
            LocalServerError: it did not start.
        """
        started = time.monotonic()
        child = ChildProcess(program)
        self._children.append(child)
        await child.start()
        self._watchers.append(asyncio.create_task(self._watch(child)))
        where = f"on {program.address}" if program.address else ""
        self._say(Step(program.name, where, time.monotonic() - started))

    async def prepare(self, server: Program | None, task: Program | None = None) -> None:
        """Start a server, and then run what prepares it; an outside server is there already.

        Raises:
            LocalServerError: one of them failed.
        """
        if server:
            await self.start(server)
        if task:
            await self.run(task)

    async def run(self, program: Program) -> None:
        """Run a program that ends by itself.

        Raises:
            LocalServerError: it failed.
        """
        started = time.monotonic()
        await ChildProcess(program).run_to_end()
        self._say(Step(program.name, seconds=time.monotonic() - started))

    async def watch(self) -> None:
        """Wait for ever.

        Raises:
            LocalServerError: a child died again and again.
        """
        await self._given_up.wait()
        if self._fault:
            raise self._fault

    async def stop(self) -> None:
        """Stop every child in the reverse order of their start."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        for child in reversed(self._children):
            started = time.monotonic()
            await child.stop(self.hurry)
            taken = time.monotonic() - started
            self._say(Step(child.program.name, "stopped", taken, Tone.STOPPED))

    async def _watch(self, child: ChildProcess) -> None:
        name = child.program.name
        short_lives = 0
        is_cause_said = False
        while True:
            await child.exited()
            lived_seconds = time.monotonic() - child.launched_at
            is_short = lived_seconds < self._policy.short_life_seconds
            if is_short and (cause := child.full_disk()):
                delay_seconds = self._policy.full_disk_delay_seconds
                if not is_cause_said:
                    state = (
                        f"died ({child.why_it_died()}): {cause}; free some space:"
                        f" starting it again every {delay_seconds:g} s"
                    )
                    self._say(Step(name, state, tone=Tone.PROBLEM))
                is_cause_said = True
                await asyncio.sleep(delay_seconds)
                await self._start_again(child)
                continue
            is_cause_said = is_cause_said and is_short
            short_lives = short_lives + 1 if is_short else 1
            if short_lives >= self._policy.short_lives:
                self._give_up(child, short_lives)
                return
            delay_seconds = self._policy.delay_seconds(short_lives)
            state = f"died ({child.why_it_died()}); starting it again in {delay_seconds:g} s"
            self._say(Step(name, state, tone=Tone.PROBLEM))
            await asyncio.sleep(delay_seconds)
            await self._start_again(child)

    async def _start_again(self, child: ChildProcess) -> None:
        started = time.monotonic()
        # A death before it is ready counts like every other; a child that waits for another one
        # (the API for the database) is left to wait.
        with contextlib.suppress(LocalServerError):
            await child.start(patience_seconds=float("inf"))
            self._say(Step(child.program.name, "is back", time.monotonic() - started))

    def _give_up(self, child: ChildProcess, deaths: int) -> None:
        self._fault = LocalServerError(
            child.report(
                f"died {deaths} times in a row, each within {self._policy.short_life_seconds:g} s "
                f"of its start (last: {child.why_it_died()})"
            )
        )
        self._given_up.set()
