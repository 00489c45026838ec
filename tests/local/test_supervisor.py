"""The supervisor handles children that die, hang, or leave children of their own.

Small programs stand in for the servers.
"""

import asyncio
import errno
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from segmentql.errors import LocalServerError
from segmentql.local import process_events
from segmentql.local.orphans import ON_LINUX
from segmentql.local.process import ChildProcess
from segmentql.local.process_events import POLL_SECONDS
from segmentql.local.program import Program
from segmentql.local.supervisor import RestartPolicy, Supervisor
from segmentql.settings import child_environment
from tests.conftest import until

QUICK = RestartPolicy(
    initial_delay_seconds=0.01, max_delay_seconds=0.02, full_disk_delay_seconds=0.01
)
SLEEPS = "import time; print('here', flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"


@pytest.fixture
async def messages() -> list[str]:
    return []


@pytest.fixture
async def supervisor(messages: list[str]) -> AsyncIterator[Supervisor]:
    created = Supervisor(lambda step: messages.append(str(step)), QUICK)
    yield created
    await created.stop()


def program(folder: Path, name: str, script: str) -> Program:
    """Return a program that is ready after its first output."""
    log = folder / f"{name}.log"

    async def ready() -> bool:
        return log.stat().st_size > 0

    return Program(
        name=name,
        command=[sys.executable, "-c", script],
        is_ready=ready,
        environment=child_environment({}),
        log_file=log,
        pid_file=folder / f"{name}.pid",
    )


def pid_of(program: Program) -> int:
    return int(program.pid_file.read_text())


async def is_gone(pid: int) -> bool:
    return has_ended(pid)


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")  # an orphan that no process has reaped yet
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"


async def test_children_stop_in_reverse_start_order(
    tmp_path: Path, supervisor: Supervisor, messages: list[str]
) -> None:
    programs = [program(tmp_path, name, SLEEPS) for name in ("first", "second", "third")]
    for one_program in programs:
        await supervisor.start(one_program)
    pids = [pid_of(one_program) for one_program in programs]

    await supervisor.stop()

    assert [line.split(",")[0] for line in messages] == [
        "first", "second", "third", "third stopped", "second stopped", "first stopped",
    ]  # fmt: skip
    assert [await is_gone(pid) for pid in pids] == [True, True, True]
    assert [one_program.pid_file.exists() for one_program in programs] == [False, False, False]


async def test_dead_child_is_restarted_and_the_reason_printed(
    tmp_path: Path, supervisor: Supervisor, messages: list[str]
) -> None:
    child = program(tmp_path, "child", SLEEPS)
    await supervisor.start(child)
    first = pid_of(child)

    os.kill(first, signal.SIGKILL)

    async def is_back() -> bool:
        return any("child restarted" in line for line in messages)

    await until(is_back)
    assert pid_of(child) != first
    assert messages[1] == "child died (signal SIGKILL); restarting in 0.01 s"


@pytest.mark.skipif(not ON_LINUX, reason="only Linux reports an exit without polling")
async def test_running_child_is_not_polled(
    tmp_path: Path, supervisor: Supervisor, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    child = program(tmp_path, "child", SLEEPS)
    await supervisor.start(child)
    await asyncio.sleep(0)  # its watcher begins
    polls = _counted_polls(monkeypatch)
    await asyncio.sleep(10 * POLL_SECONDS)
    assert polls == []

    os.kill(pid_of(child), signal.SIGKILL)

    await until(lambda: _is_back(messages))


async def test_exit_is_noticed_by_polling_without_pidfd(
    tmp_path: Path, supervisor: Supervisor, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_events, "_open_pidfd", lambda pid: None)
    child = program(tmp_path, "child", SLEEPS)
    await supervisor.start(child)

    os.kill(pid_of(child), signal.SIGKILL)

    await until(lambda: _is_back(messages))


def _counted_polls(monkeypatch: pytest.MonkeyPatch) -> list[ChildProcess]:
    """Collect the children whose exit status is read from now on."""
    polls: list[ChildProcess] = []
    exit_status = ChildProcess.exit_status

    def counting_poll(self: ChildProcess) -> int | None:
        polls.append(self)
        return exit_status(self)

    monkeypatch.setattr(ChildProcess, "exit_status", counting_poll)
    return polls


async def _is_back(messages: list[str]) -> bool:
    return any("child restarted" in line for line in messages)


async def test_repeated_deaths_end_the_run_with_the_last_lines(
    tmp_path: Path, supervisor: Supervisor, messages: list[str]
) -> None:
    script = "import sys; print('no luck', flush=True); sys.stdin.close(); sys.exit(3)"
    child = replace(program(tmp_path, "child", script), is_ready=_always)
    await supervisor.start(child)

    with pytest.raises(LocalServerError) as caught:
        await asyncio.wait_for(supervisor.wait_for_failure(), 30)

    lines = str(caught.value).splitlines()
    assert lines[0] == (
        "child died 5 times in a row, each within 10 s of its start (last: exit code 3)"
    )
    assert lines[-1] == "    no luck"
    assert [line for line in messages if "died" in line] == [
        "child died (exit code 3); restarting in 0.01 s",
        *["child died (exit code 3); restarting in 0.02 s"] * 3,
    ]


async def test_long_run_does_not_count_as_a_death_in_a_row(
    tmp_path: Path, supervisor: Supervisor, messages: list[str]
) -> None:
    room = tmp_path / "room"
    script = f"import os, sys\nif not os.path.exists({str(room)!r}): sys.exit(3)\n{SLEEPS}"
    child = replace(program(tmp_path, "child", script), is_ready=_always)
    room.write_text("")
    await supervisor.start(child)
    (running,) = supervisor._children
    running.launched_at -= 60  # longer than any short run
    room.unlink()
    os.kill(pid_of(child), signal.SIGKILL)

    with pytest.raises(LocalServerError, match="child died 5 times in a row"):
        await asyncio.wait_for(supervisor.wait_for_failure(), 30)

    assert [line for line in messages if "died" in line] == [
        "child died (signal SIGKILL); restarting in 0.01 s",
        "child died (exit code 3); restarting in 0.01 s",
        *["child died (exit code 3); restarting in 0.02 s"] * 3,
    ]


async def test_child_on_a_full_disk_is_restarted_until_there_is_space(
    tmp_path: Path, supervisor: Supervisor, messages: list[str]
) -> None:
    room = tmp_path / "room"
    script = (
        "import os, sys, time\n"
        f"if not os.path.exists({str(room)!r}): sys.exit('write failed: No space left on device')\n"
        f"{SLEEPS}"
    )
    child = program(tmp_path, "child", script)
    room.write_text("")
    await supervisor.start(child)
    room.unlink()
    os.kill(pid_of(child), signal.SIGKILL)

    async def has_died_often() -> bool:
        return child.log_file is not None and child.log_file.read_text().count("No space") > 6

    await until(has_died_often)
    room.write_text("")

    async def is_back() -> bool:
        return (child.log_file or room).read_text().count("here") == 2

    await until(is_back)
    first, line = [line for line in messages if "died" in line]
    assert first == "child died (signal SIGKILL); restarting in 0.01 s"
    assert re.fullmatch(
        r"child died \(exit code 1\): no space left on device: [0-9.]+ MiB free of [0-9]+ MiB at"
        rf" {re.escape(str(tmp_path))}; free some space: restarting every 0\.01 s",
        line,
    )


async def test_child_with_a_failed_restart_is_still_watched(
    tmp_path: Path, supervisor: Supervisor, messages: list[str]
) -> None:
    faults = [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EACCES, "No"), None]

    async def prepare() -> None:
        if starts and (fault := faults.pop(0)):
            raise fault
        starts.append(1)

    starts: list[int] = []
    child = replace(program(tmp_path, "child", SLEEPS), before_start=prepare)
    await supervisor.start(child)
    first = pid_of(child)
    os.kill(first, signal.SIGKILL)

    async def is_back() -> bool:
        return any("child restarted" in line for line in messages)

    await until(is_back)
    assert pid_of(child) != first
    died = [line for line in messages if "died" in line]
    assert [line.split(":")[0] for line in died] == [
        "child died (signal SIGKILL); restarting in 0.01 s",
        "child died ([Errno 28] No space left on device)",
        "child died ([Errno 13] No); restarting in 0.02 s",
    ]


async def test_long_run_resets_the_death_count(tmp_path: Path, messages: list[str]) -> None:
    policy = replace(QUICK, min_uptime_seconds=0)
    forgiving = Supervisor(lambda step: messages.append(str(step)), policy)
    child = replace(program(tmp_path, "child", "raise SystemExit(3)"), is_ready=_always)
    await forgiving.start(child)

    async def many_restarts() -> bool:
        return len([line for line in messages if "died" in line]) >= 8

    await until(many_restarts)
    await forgiving.stop()


async def test_child_that_does_not_start_is_an_error_with_its_last_lines(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    script = "import sys; sys.exit('port in use')"
    child = replace(program(tmp_path, "child", script), is_ready=_never)

    with pytest.raises(LocalServerError, match=r"(?s)did not start \(exit code 1\).*port in use"):
        await supervisor.start(child)


async def test_log_lines_of_an_earlier_run_are_not_shown(tmp_path: Path) -> None:
    child = replace(program(tmp_path, "child", "raise SystemExit(2)"), is_ready=_never)
    (tmp_path / "child.log").write_text("a line of the last run\n")

    with pytest.raises(LocalServerError, match=r"^child did not start \(exit code 2\)$"):
        await ChildProcess(child).start()


async def test_child_that_is_never_ready_is_an_error(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    child = replace(program(tmp_path, "child", SLEEPS), is_ready=_never, ready_timeout_seconds=0.1)

    with pytest.raises(LocalServerError, match=r"was not ready within 0\.1 s"):
        await supervisor.start(child)
    await supervisor.stop()
    assert not child.pid_file.exists()


async def test_failed_step_is_an_error(tmp_path: Path, supervisor: Supervisor) -> None:
    step = replace(program(tmp_path, "step", "raise SystemExit(2)"), log_file=None)

    with pytest.raises(LocalServerError, match=r"step failed \(exit code 2\)"):
        await supervisor.run(step)


async def test_child_that_ignores_its_signal_is_killed(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    child = replace(program(tmp_path, "child", DEAF), stop_timeout_seconds=0.1)
    await supervisor.start(child)
    pid = pid_of(child)

    await supervisor.stop()

    assert await is_gone(pid)


async def test_second_stop_signal_kills_at_once(tmp_path: Path, supervisor: Supervisor) -> None:
    child = replace(program(tmp_path, "child", DEAF), stop_timeout_seconds=600)
    await supervisor.start(child)
    pid = pid_of(child)

    stopping = asyncio.create_task(supervisor.stop())
    supervisor.force.set()
    await asyncio.wait_for(stopping, 30)

    assert await is_gone(pid)


async def test_children_of_a_killed_child_are_killed(
    tmp_path: Path, supervisor: Supervisor, messages: list[str]
) -> None:
    script = (
        "import subprocess, sys, time;"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid,"
        " flush=True); time.sleep(600)"
    )
    child = program(tmp_path, "child", script)
    await supervisor.start(child)
    grandchild = int((tmp_path / "child.log").read_text())

    os.kill(pid_of(child), signal.SIGKILL)

    await until(lambda: is_gone(grandchild))


async def test_only_programs_of_an_earlier_run_are_stopped(tmp_path: Path) -> None:
    leftover, other = program(tmp_path, "child", SLEEPS), program(tmp_path, "other", SLEEPS)
    earlier, bystander = ChildProcess(leftover), ChildProcess(other)
    await earlier.start()
    await bystander.start()

    await ChildProcess(leftover).stop_orphans()

    assert earlier.exit_status() == -signal.SIGTERM
    assert bystander.exit_status() is None
    await bystander.stop()


async def _always() -> bool:
    return True


async def _never() -> bool:
    return False
