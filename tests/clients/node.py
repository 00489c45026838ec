"""Runs the JavaScript clients of this folder with Node from PATH or from its PyPI wheel."""

import asyncio
import hashlib
import importlib.util
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "web" / "build.py"
STAMP = HERE / "node_modules" / ".stamp"
PATIENCE_SECONDS = 120


async def run_node(*arguments: str, folder: Path = HERE) -> str:
    """Return the output of a script of this folder, and fail if it exits with an error."""
    npm, environment = await asyncio.to_thread(_installed)
    # If npm is a script that Node runs, that Node comes first; otherwise the one on PATH.
    node = npm[0] if len(npm) > 1 else shutil.which("node") or "node"
    return await _run([node, *arguments], environment, folder)


@asynccontextmanager
async def running_node(
    *arguments: str, folder: Path = HERE
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a script that does not end by itself, with its output in a pipe."""
    npm, environment = await asyncio.to_thread(_installed)
    node = npm[0] if len(npm) > 1 else shutil.which("node") or "node"
    process = await asyncio.create_subprocess_exec(
        node, *arguments, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def run_json(script: str, *arguments: str) -> Any:
    """Return the output of a script, parsed as JSON."""
    return json.loads(await run_node(script, *arguments))


async def run_binary(name: str, *arguments: str, folder: Path = HERE) -> str:
    """Return the output of a command of an installed package."""
    return await run_node(str(HERE / "node_modules" / ".bin" / name), *arguments, folder=folder)


async def run_npm(*arguments: str, folder: Path) -> str:
    """Return the output of npm in a folder outside the repository."""
    build = _web_build()
    try:
        npm, environment = await asyncio.to_thread(build.find_npm)
    except build.BuildError as error:
        pytest.fail(f"No client can be tried, because Node is missing: {error}")
    return await _run([*npm, *arguments], environment, folder)


async def install_packages(folder: Path) -> None:
    """Install the packages of a folder's lock file."""
    await run_npm(*_web_build().NPM_CI.split(), folder=folder)


async def _run(command: list[str], environment: dict[str, str], folder: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    printed = output.decode()
    assert process.returncode == 0, f"{command}\n{printed}\n{errors.decode()}"
    return printed


def _installed() -> tuple[list[str], dict[str, str]]:
    """Install the packages of the lock file, and return npm's command and environment."""
    build = _web_build()
    try:
        npm, environment = build.find_npm()
        lock_hash = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
        if not STAMP.is_file() or STAMP.read_text() != lock_hash:
            build.run("npm ci", [*npm, *build.NPM_CI.split(), "--prefix", str(HERE)], environment)
            STAMP.write_text(lock_hash)
    except build.BuildError as error:
        pytest.fail(f"No client can be tried, because Node or its packages are missing: {error}")
    return npm, environment


def _web_build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("web_build", BUILD)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
