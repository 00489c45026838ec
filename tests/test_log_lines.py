"""Buffered log lines keep their order, and none is lost at the end of a process."""

import asyncio
import subprocess
import sys

import orjson
import pytest

from segmentql import log_lines

PROGRAM = """
import asyncio, logging, os, signal, sys
from segmentql import log_lines, logs
from segmentql.settings import Settings

logs.configure(Settings.model_construct(
    log_format="json", log_level="info", log_errors_to_stdout="off"))
lines = log_lines.JsonLines("requests", logging.INFO)

async def main():
    lines.info("first")
    lines.info("second", reason="the same turn")
    logging.getLogger("other").warning("third")
    lines.info("fourth")
    if sys.argv[1] == "error":
        raise RuntimeError
    if sys.argv[1] == "exit":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        os.kill(os.getpid(), signal.SIGTERM)

asyncio.run(main())
"""


@pytest.mark.parametrize("end", ["return", "error", "exit"])
def test_lines_keep_their_order_and_are_written_before_the_end(end: str) -> None:
    process = subprocess.run([sys.executable, "-c", PROGRAM, end], capture_output=True, check=False)
    lines = [line for line in process.stderr.splitlines() if line.startswith(b"{")]
    events = [orjson.loads(line)["event"] for line in lines]
    assert events == ["first", "second", "third", "fourth"]


async def test_lines_of_one_turn_are_one_write(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    lines = log_lines.JsonLines("requests", 20)
    lines.info("a")
    lines.info("b")
    assert capsysbinary.readouterr().err == b""
    await asyncio.sleep(0)
    written = capsysbinary.readouterr().err.splitlines()
    assert [orjson.loads(line)["event"] for line in written] == ["a", "b"]


async def test_level_and_warnings_are_respected(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    lines = log_lines.JsonLines("requests", 30)
    lines.info("a")
    lines.warning("b")  # it is written at once
    (line,) = capsysbinary.readouterr().err.splitlines()
    assert (orjson.loads(line)["event"], orjson.loads(line)["level"]) == ("b", "warning")
