"""`segmentql serve` warns at its start if the pages are not built."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from segmentql.local.ports import free_port
from segmentql.settings import Settings
from tests.conftest import PATIENCE_SECONDS, environment
from tests.new_version import copy_migrations, copy_source

pytestmark = pytest.mark.slow  # it starts the managing process and two API processes


async def test_serve_warns_once_of_pages_that_are_not_built(
    settings: Settings, tmp_path: Path
) -> None:
    source = copy_source(tmp_path)
    copy_migrations(tmp_path)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", "serve", "--workers", "2"),
        cwd=tmp_path,
        env=environment(settings, SEGMENTQL_PORT=str(free_port()), PYTHONPATH=str(source)),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    lines: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while sum("startup complete" in line["event"] for line in lines) < 2:
                lines.append(orjson.loads(await process.stderr.readline()))
    finally:
        process.terminate()  # the managing process then stops the others
        await process.communicate()
    (warning,) = [line for line in lines if line["event"] == "pages_not_built"]
    assert (warning["level"], warning["pages"]) == ("warning", ["console", "GraphiQL"])
    assert "make web" in warning["reason"]
