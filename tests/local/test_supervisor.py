"""The supervisor starts and stops children, also those that hang or leave children of their own."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from segmentql.errors import LocalServerError
from segmentql.local.process import ChildProcess
from segmentql.local.supervisor import Supervisor
from tests.conftest import until
from tests.local.programs import DEAF, SLEEPS, is_gone, never, pid_of, program


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


async def test_child_that_does_not_start_is_an_error_with_its_last_lines(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    script = "import sys; sys.exit('port in use')"
    child = replace(program(tmp_path, "child", script), is_ready=never)

    with pytest.raises(LocalServerError, match=r"(?s)did not start \(exit code 1\).*port in use"):
        await supervisor.start(child)


async def test_log_lines_of_an_earlier_run_are_not_shown(tmp_path: Path) -> None:
    child = replace(program(tmp_path, "child", "raise SystemExit(2)"), is_ready=never)
    (tmp_path / "child.log").write_text("a line of the last run\n")

    with pytest.raises(LocalServerError, match=r"^child did not start \(exit code 2\)$"):
        await ChildProcess(child).start()


async def test_child_that_is_never_ready_is_an_error(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    child = replace(program(tmp_path, "child", SLEEPS), is_ready=never, ready_timeout_seconds=0.1)

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
