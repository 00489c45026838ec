"""The supervisor restarts children that die, and gives up after repeated deaths."""

import asyncio
import errno
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from segmentql.errors import LocalServerError
from segmentql.local import process_events
from segmentql.local.orphans import ON_LINUX
from segmentql.local.process import ChildProcess
from segmentql.local.process_events import POLL_SECONDS
from segmentql.local.program import Program
from segmentql.local.supervisor import Supervisor
from tests.conftest import until
from tests.local.programs import QUICK, SLEEPS, always, pid_of, program


async def test_dead_child_is_restarted_and_the_reason_printed(
    tmp_path: Path, supervisor: Supervisor, messages: list[str]
) -> None:
    child = program(tmp_path, "child", SLEEPS)
    await supervisor.start(child)
    first = pid_of(child)
    await _kill_and_wait_for_restart(child, messages)
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
    await _kill_and_wait_for_restart(child, messages)


async def test_exit_is_noticed_by_polling_without_pidfd(
    tmp_path: Path, supervisor: Supervisor, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_events, "_open_pidfd", lambda pid: None)
    child = program(tmp_path, "child", SLEEPS)
    await supervisor.start(child)
    await _kill_and_wait_for_restart(child, messages)


def _counted_polls(monkeypatch: pytest.MonkeyPatch) -> list[ChildProcess]:
    """Collect the children whose exit status is read from now on."""
    polls: list[ChildProcess] = []
    exit_status = ChildProcess.exit_status

    def counting_poll(self: ChildProcess) -> int | None:
        polls.append(self)
        return exit_status(self)

    monkeypatch.setattr(ChildProcess, "exit_status", counting_poll)
    return polls


async def _kill_and_wait_for_restart(child: Program, messages: list[str]) -> None:
    """Kill the child, and wait until the supervisor has restarted it."""
    os.kill(pid_of(child), signal.SIGKILL)

    async def is_restarted() -> bool:
        return any("child restarted" in line for line in messages)

    await until(is_restarted)


async def test_repeated_deaths_end_the_run_with_the_last_lines(
    tmp_path: Path, supervisor: Supervisor, messages: list[str]
) -> None:
    may_die = tmp_path / "may-die"
    script = (
        f"import os, sys, time\nwhile not os.path.exists({str(may_die)!r}): time.sleep(0.01)\n"
        "print('no luck', flush=True); sys.stdin.close(); sys.exit(3)"
    )
    child = replace(program(tmp_path, "child", script), is_ready=always)
    await supervisor.start(child)
    may_die.write_text("")

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
    child = replace(program(tmp_path, "child", script), is_ready=always)
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
    await _kill_and_wait_for_restart(child, messages)
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
    child = replace(program(tmp_path, "child", "raise SystemExit(3)"), is_ready=always)
    await forgiving.start(child)

    async def many_restarts() -> bool:
        return len([line for line in messages if "died" in line]) >= 8

    await until(many_restarts)
    await forgiving.stop()
