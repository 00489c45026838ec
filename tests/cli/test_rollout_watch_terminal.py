"""`segmentql rollout watch` shows a progress bar on a terminal."""

import asyncio
import contextlib
import functools
import os
import sys
from pathlib import Path

import pytest

from segmentql.settings import Settings
from tests.cli.rollout_watch_process import create_rollout, set_progress
from tests.conftest import Api, Sql, environment, until
from tests.rollouts.graphql_client import accepted_rollout, cancel_rollout, pause_rollout

pytestmark = pytest.mark.slow  # the test starts a process of the command


def rendered_lines(output: str) -> list[str]:
    """Return the lines that a terminal shows after this output."""
    lines = [""]
    column = 0
    for letter in output:
        if letter == "\n":
            lines.append("")
            column = 0
        elif letter == "\r":
            column = 0
        else:
            lines[-1] = lines[-1][:column] + letter + lines[-1][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


async def test_terminal_shows_a_progress_bar_below_the_lines(
    settings: Settings, api: Api, sql: Sql, tmp_path: Path
) -> None:
    await create_rollout(api, percent=10)
    controller, terminal = os.openpty()
    os.set_blocking(controller, False)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", "rollout", "watch", "A"),
        cwd=tmp_path,
        env=environment(settings, COLUMNS="80"),
        stdout=terminal,
        stderr=terminal,
    )
    output = ""

    async def shows(lines: int, last: str) -> bool:
        nonlocal output
        with contextlib.suppress(BlockingIOError):
            output += os.read(controller, 65536).decode()
        screen = rendered_lines(output)
        return (len(screen), screen[-1]) == (lines, last)

    bar = "[" + "#" * 14 + "-" * 16 + "] 47 %  47 of 100 users processed, 0 enrolled"
    try:
        start = "[" + "-" * 30 + "] 0 %  counting users, 0 enrolled"
        await until(functools.partial(shows, 2, start))
        await set_progress(sql, 47, 100)
        await until(functools.partial(shows, 2, bar))
        accepted_rollout(await pause_rollout(api))
        await until(functools.partial(shows, 3, bar))
        accepted_rollout(await cancel_rollout(api))
        await until(functools.partial(shows, 5, ""))
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(terminal)
        os.close(controller)
    running, paused, *rest = rendered_lines(output)
    assert running[9:] == "RUNNING: 10 % of users, 0 enrolled"
    assert paused[9:] == "PAUSED: 10 % of users, 0 enrolled"
    assert [rest[0], rest[1][9:], *rest[2:]] == [
        bar,
        "CANCELLED: 10 % of users, 0 enrolled",
        "",
    ]
