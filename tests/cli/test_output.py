"""A command whose standard output loses its reader ends without an error, as `git log

head` does.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from segmentql.adapters.database import Database
from segmentql.keys.service import create_key
from segmentql.principal import NO_ACTOR
from segmentql.settings import Settings
from segmentql.tables import Role
from tests.conftest import PATIENCE_SECONDS, Api, environment
from tests.operations import create_segment


async def run_without_reader(
    settings: Settings, folder: Path, arguments: Sequence[str]
) -> tuple[int | None, str]:
    """Return the exit status and the error output of a command whose output has no reader."""
    read, write = os.pipe()
    os.close(read)
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "segmentql", *arguments),
            cwd=folder,
            env=environment(settings),
            stdout=write,
            stderr=asyncio.subprocess.PIPE,
        )
    finally:
        os.close(write)
    _, error_output = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    return process.returncode, error_output.decode()


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["report", "--help"], ["--version"], ["schema"], ["keys", "list"], ["doctor"]],
    ids=" ".join,
)
@pytest.mark.slow
async def test_command_without_a_reader_ends_by_sigpipe(
    settings: Settings, database: Database, tmp_path: Path, arguments: list[str]
) -> None:
    # It takes over a second, because each command starts an interpreter.
    await database.transaction(
        lambda session: create_key(session, name="a key", role=Role.READER, actor=NO_ACTOR)
    )
    assert await run_without_reader(settings, tmp_path, arguments) == (-signal.SIGPIPE, "")


@pytest.mark.slow
async def test_rollout_watch_without_a_reader_ends_by_sigpipe(
    settings: Settings, api: Api, tmp_path: Path
) -> None:
    await create_segment(api, slug="A", rollout={"percent": 50})
    watch = ["rollout", "watch", "A"]
    assert await run_without_reader(settings, tmp_path, watch) == (-signal.SIGPIPE, "")


async def test_broken_connection_is_not_a_missing_reader(
    settings: Settings, tmp_path: Path
) -> None:
    script = (
        "import click, segmentql.cli as cli\n"
        "@click.command()\n"
        "def broken(): raise BrokenPipeError(32, 'Broken pipe')\n"
        "cli.LazyGroup.get_command = lambda *_: broken\n"
        "cli.main(['broken'])\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script),
        cwd=tmp_path,
        env=environment(settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, error_output = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert (process.returncode, error_output) == (1, b"Error: a connection broke: Broken pipe\n")
