"""Helpers for tests of commands that are clients of the API."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import uvicorn
from click.testing import CliRunner
from starlette.applications import Starlette

from segmentql.cli import main
from tests.conftest import PATIENCE_SECONDS


@dataclass(frozen=True)
class CommandResult:
    """The exit code and the output of a command."""

    code: int
    output: str
    errors: str


RunImport: TypeAlias = Callable[..., Coroutine[Any, Any, CommandResult]]


@asynccontextmanager
async def listening(app: Starlette) -> AsyncIterator[str]:
    """Serve an application, whose lifespan has begun, on a free port; yield its address."""
    config = uvicorn.Config(
        app, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


async def run_command(
    *arguments: str, stdin: bytes | None = None, **variables: str
) -> CommandResult:
    """Run a command in a thread of this process."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        result = await asyncio.to_thread(
            CliRunner().invoke, main, arguments, input=stdin, env=variables
        )
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    # The application logs to the same standard error.
    errors = [
        line for line in result.stderr.splitlines(keepends=True) if not line.startswith('{"logger')
    ]
    return CommandResult(result.exit_code, result.stdout, "".join(errors))
