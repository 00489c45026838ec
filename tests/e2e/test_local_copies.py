"""The programs of docs/local-copies.md keep the members of a segment."""

import asyncio
import re
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest

from segmentql.settings import child_environment
from tests.clients.node import HERE, run_binary
from tests.conftest import Api, RunWorker, until
from tests.e2e.conftest import RunServe
from tests.operations import make_segments, update_user_segments

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("s3")]

PAGE: Final = Path(__file__).parents[2] / "docs" / "local-copies.md"


def program(language: str) -> str:
    """Return the program in a language on the page."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(found) == 1
    return str(found[0])


@asynccontextmanager
async def copying(command: Sequence[str], address: str, log: Path) -> AsyncIterator[None]:
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            "a",
            stdout=output,
            stderr=output,
            env=child_environment({"SEGMENTQL_URL": address}),
        )
    try:
        yield
        assert process.returncode is None, log.read_text()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def check_copy(
    command: Sequence[str], run_serve: RunServe, run_worker: RunWorker, log: Path
) -> None:
    """Run a program beside changes, and check the numbers of members that it prints."""
    async with (
        run_serve() as serving,
        run_worker(),
        httpx.AsyncClient(base_url=serving.address, timeout=60) as http,
    ):
        api = Api(http)
        await make_segments(api, "a", "b")
        for user_id in (1, 2, 3):
            await update_user_segments(api, user_id, add=["a"])
        async with copying(command, serving.address, log):

            async def prints(*numbers: int) -> None:
                async def has_printed() -> bool:
                    lines = log.read_text().splitlines()
                    assert all(line.isdigit() for line in lines), lines
                    distinct = [
                        int(line)
                        for position, line in enumerate(lines)
                        if position == 0 or lines[position - 1] != line
                    ]
                    return distinct == list(numbers)

                await until(has_printed)

            await prints(3)
            await update_user_segments(api, 4, add=["a", "b"])
            await prints(3, 4)
            await update_user_segments(api, 1, add=["b"], remove=["a"])
            await prints(3, 4, 3)
            await update_user_segments(api, 2, add=["a"], ttlSeconds=1, onExisting="REPLACE")
            await prints(3, 4, 3, 2)


async def test_python_program_keeps_a_copy_of_the_members(
    run_serve: RunServe, run_worker: RunWorker, tmp_path: Path
) -> None:
    path = tmp_path / "copy.py"
    path.write_text(program("python"))
    await check_copy([sys.executable, str(path)], run_serve, run_worker, tmp_path / "log")


async def test_typescript_program_keeps_a_copy_of_the_members(
    run_serve: RunServe, run_worker: RunWorker, tmp_path: Path
) -> None:
    path = tmp_path / "copy.mts"
    path.write_text(program("typescript"))
    await run_binary(
        "tsc",
        *("--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"),
        *("--typeRoots", str(HERE / "node_modules" / "@types"), "--types", "node"),
        str(path),
    )
    command = [shutil.which("node") or "node", str(path.with_suffix(".mjs"))]
    await check_copy(command, run_serve, run_worker, tmp_path / "log")
