"""Commands in a process of their own."""

import asyncio
import sys
from pathlib import Path

from segmentql.settings import Settings
from tests.conftest import PATIENCE_SECONDS, environment


async def run(
    settings: Settings, folder: Path, *arguments: str, **changes: str
) -> tuple[int | None, str]:
    """Run a command; return its exit code and output.

    Args:
        settings: The settings of the command.
        folder: The current folder of the command.
        arguments: The arguments of `segmentql`.
        changes: More environment variables.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", *arguments),
        cwd=folder,
        env=environment(settings, **changes),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    except TimeoutError:  # it started, although it must not
        process.kill()
        await process.wait()
        raise
    return process.returncode, output.decode()
