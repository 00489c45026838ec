"""Children that die, hang, or leave children of their own. Small programs stand in for ours."""

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
async def said() -> list[str]:
    return []


@pytest.fixture
async def supervisor(said: list[str]) -> AsyncIterator[Supervisor]:
    made = Supervisor(lambda step: said.append(str(step)), QUICK)
    yield made
    await made.stop()


def program(folder: Path, name: str, script: str) -> Program:
    """A program that is ready once it has said something."""
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


async def gone(pid: int) -> bool:
    return has_ended(pid)


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")  # an orphan that nobody has buried yet
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"


async def test_children_stop_in_the_reverse_order_of_their_start(
    tmp_path: Path, supervisor: Supervisor, said: list[str]
) -> None:
    programs = [program(tmp_path, name, SLEEPS) for name in ("first", "second", "third")]
    for each in programs:
        await supervisor.start(each)
    pids = [pid_of(each) for each in programs]

    await supervisor.stop()

    assert [line.split(",")[0] for line in said] == [
        "first", "second", "third", "third stopped", "second stopped", "first stopped",
    ]  # fmt: skip
    assert [await gone(pid) for pid in pids] == [True, True, True]
    assert [each.pid_file.exists() for each in programs] == [False, False, False]


async def test_a_dead_child_is_started_again_and_the_reason_said(
    tmp_path: Path, supervisor: Supervisor, said: list[str]
) -> None:
    child = program(tmp_path, "child", SLEEPS)
    await supervisor.start(child)
    first = pid_of(child)

    os.kill(first, signal.SIGKILL)

    async def back() -> bool:
        return any("child restarted" in line for line in said)

    await until(back)
    assert pid_of(child) != first
    assert said[1] == "child died (signal SIGKILL); restarting in 0.01 s"


@pytest.mark.skipif(not ON_LINUX, reason="only Linux tells of an exit without polling")
async def test_a_child_that_lives_is_not_polled(
    tmp_path: Path, supervisor: Supervisor, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    child = program(tmp_path, "child", SLEEPS)
    await supervisor.start(child)
    await asyncio.sleep(0)  # its watcher begins
    polls = _counted_polls(monkeypatch)
    await asyncio.sleep(10 * POLL_SECONDS)
    assert polls == []

    os.kill(pid_of(child), signal.SIGKILL)

    await until(lambda: _is_back(said))


async def test_a_death_is_noticed_where_the_system_does_not_tell_of_it(
    tmp_path: Path, supervisor: Supervisor, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_events, "_open_pidfd", lambda pid: None)
    child = program(tmp_path, "child", SLEEPS)
    await supervisor.start(child)

    os.kill(pid_of(child), signal.SIGKILL)

    await until(lambda: _is_back(said))


def _counted_polls(monkeypatch: pytest.MonkeyPatch) -> list[ChildProcess]:
    """Collect the children whose exit status is read from now on."""
    polls: list[ChildProcess] = []
    exit_status = ChildProcess.exit_status

    def counted(self: ChildProcess) -> int | None:
        polls.append(self)
        return exit_status(self)

    monkeypatch.setattr(ChildProcess, "exit_status", counted)
    return polls


async def _is_back(said: list[str]) -> bool:
    return any("child restarted" in line for line in said)


async def test_a_child_that_dies_again_and_again_ends_the_watch_with_its_last_lines(
    tmp_path: Path, supervisor: Supervisor, said: list[str]
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
    assert [line for line in said if "died" in line] == [
        "child died (exit code 3); restarting in 0.01 s",
        *["child died (exit code 3); restarting in 0.02 s"] * 3,
    ]


async def test_a_child_on_a_full_disk_is_started_until_there_is_room(
    tmp_path: Path, supervisor: Supervisor, said: list[str]
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

    async def back() -> bool:
        return (child.log_file or room).read_text().count("here") == 2

    await until(back)
    first, line = [line for line in said if "died" in line]
    assert first == "child died (signal SIGKILL); restarting in 0.01 s"
    assert re.fullmatch(
        r"child died \(exit code 1\): no space left on device: [0-9.]+ MiB free of [0-9]+ MiB at"
        rf" {re.escape(str(tmp_path))}; free some space: restarting every 0\.01 s",
        line,
    )


async def test_a_child_whose_start_fails_is_still_watched(
    tmp_path: Path, supervisor: Supervisor, said: list[str]
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

    async def back() -> bool:
        return any("child restarted" in line for line in said)

    await until(back)
    assert pid_of(child) != first
    died = [line for line in said if "died" in line]
    assert [line.split(":")[0] for line in died] == [
        "child died (signal SIGKILL); restarting in 0.01 s",
        "child died ([Errno 28] No space left on device)",
        "child died ([Errno 13] No); restarting in 0.02 s",
    ]


async def test_long_lives_between_deaths_begin_a_new_count(tmp_path: Path, said: list[str]) -> None:
    policy = replace(QUICK, min_uptime_seconds=0)
    forgiving = Supervisor(lambda step: said.append(str(step)), policy)
    child = replace(program(tmp_path, "child", "raise SystemExit(3)"), is_ready=_always)
    await forgiving.start(child)

    async def many() -> bool:
        return len([line for line in said if "died" in line]) >= 8

    await until(many)
    await forgiving.stop()


async def test_a_child_that_does_not_start_is_an_error_with_its_last_lines(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    script = "import sys; sys.exit('port in use')"
    child = replace(program(tmp_path, "child", script), is_ready=_never)

    with pytest.raises(LocalServerError, match=r"(?s)did not start \(exit code 1\).*port in use"):
        await supervisor.start(child)


async def test_the_lines_of_an_earlier_run_are_not_shown_as_the_reason(tmp_path: Path) -> None:
    child = replace(program(tmp_path, "child", "raise SystemExit(2)"), is_ready=_never)
    (tmp_path / "child.log").write_text("a line of the last run\n")

    with pytest.raises(LocalServerError, match=r"^child did not start \(exit code 2\)$"):
        await ChildProcess(child).start()


async def test_a_child_that_is_never_ready_is_an_error(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    child = replace(program(tmp_path, "child", SLEEPS), is_ready=_never, ready_timeout_seconds=0.1)

    with pytest.raises(LocalServerError, match=r"was not ready within 0\.1 s"):
        await supervisor.start(child)
    await supervisor.stop()
    assert not child.pid_file.exists()


async def test_a_step_that_fails_is_an_error(tmp_path: Path, supervisor: Supervisor) -> None:
    step = replace(program(tmp_path, "step", "raise SystemExit(2)"), log_file=None)

    with pytest.raises(LocalServerError, match=r"step failed \(exit code 2\)"):
        await supervisor.run(step)


async def test_a_child_deaf_to_its_signal_is_killed_when_its_time_is_up(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    child = replace(program(tmp_path, "child", DEAF), stop_timeout_seconds=0.1)
    await supervisor.start(child)
    pid = pid_of(child)

    await supervisor.stop()

    assert await gone(pid)


async def test_hurry_ends_the_patience(tmp_path: Path, supervisor: Supervisor) -> None:
    child = replace(program(tmp_path, "child", DEAF), stop_timeout_seconds=600)
    await supervisor.start(child)
    pid = pid_of(child)

    stopping = asyncio.create_task(supervisor.stop())
    supervisor.force.set()
    await asyncio.wait_for(stopping, 30)

    assert await gone(pid)


async def test_children_of_a_killed_child_go_with_it(
    tmp_path: Path, supervisor: Supervisor, said: list[str]
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

    await until(lambda: gone(grandchild))


async def test_what_an_earlier_run_left_is_stopped_and_nothing_else(tmp_path: Path) -> None:
    left, other = program(tmp_path, "child", SLEEPS), program(tmp_path, "other", SLEEPS)
    earlier, bystander = ChildProcess(left), ChildProcess(other)
    await earlier.start()
    await bystander.start()

    await ChildProcess(left).stop_orphans()

    assert earlier.exit_status() == -signal.SIGTERM
    assert bystander.exit_status() is None
    await bystander.stop()


async def _always() -> bool:
    return True


async def _never() -> bool:
    return False
