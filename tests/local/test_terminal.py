"""`segmentql up` prints lines for a terminal or a pipe and limits its log files."""

import asyncio
import io
import logging
from pathlib import Path

import pytest

from segmentql.local.log_files import rotate_logs
from segmentql.local.terminal import Status, Step, Summary, Terminal
from segmentql.logs import ErrorLines
from tests.conftest import until

STEPS = (
    Step("PostgreSQL", "on 127.0.0.1:21000", 4.14),
    Step("migrations", seconds=1.2),
    Step("Redis", "died (signal SIGKILL)", status=Status.PROBLEM),
    Step("object store", "stopped", 10.0, Status.STOPPED),
)
SUMMARY = Summary(6.55, (("GraphiQL", "http://127.0.0.1:8080/graphql"), ("Data", "/d")), "curl x")


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def use_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)


def printed(stream: io.StringIO) -> str:
    terminal = Terminal(stream)
    for line in (*STEPS, SUMMARY, "data stay"):
        terminal.print_line(line)
    return stream.getvalue()


def test_lines_in_a_pipe_are_plain() -> None:
    assert printed(io.StringIO()) == (
        "PostgreSQL on 127.0.0.1:21000, 4.1 s\n"
        "migrations, 1.2 s\n"
        "Redis died (signal SIGKILL)\n"
        "object store stopped, 10.0 s\n"
        "ready after 6.5 s; Ctrl-C stops everything\n"
        "\n"
        "GraphiQL:    http://127.0.0.1:8080/graphql\n"
        "Data:        /d\n"
        "\n"
        "curl x\n"
        "data stay\n"
    )


def test_lines_on_a_terminal_are_aligned_and_coloured() -> None:
    assert printed(Screen()).splitlines()[:5] == [
        "\x1b[32mPostgreSQL   \x1b[0mon 127.0.0.1:21000       4.1 s",
        "\x1b[32mmigrations   \x1b[0m                         1.2 s",
        "\x1b[33mRedis        \x1b[0mdied (signal SIGKILL)",
        "\x1b[90mobject store \x1b[0mstopped                 10.0 s",
        "\x1b[32m\x1b[1mready after 6.5 s\x1b[0m; Ctrl-C stops everything",
    ]


def test_no_color_keeps_the_columns_without_colours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    lines = printed(Screen()).splitlines()

    assert lines[0] == "PostgreSQL   on 127.0.0.1:21000       4.1 s"
    assert not any("\x1b" in line for line in lines)


def test_closed_terminal_causes_no_fault() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    Terminal(Closed()).print_line("stopping")


def error(text: str, **event: object) -> logging.LogRecord:
    message = {"event": text, **event} if event else text
    return logging.LogRecord("x", logging.ERROR, "x", 1, message, None, None)


def test_error_is_one_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ErrorLines("API")

    lines.emit(error("failed", exc_info=ValueError("one\ntwo"), request_id="r-1"))
    lines.emit(error("lost connection"))
    lines.emit(error("long" * 100))

    assert capsys.readouterr().out.splitlines() == [
        "API error: failed: ValueError: one (request_id r-1)",
        "API error: lost connection",
        f"API error: {'long' * 50} ...",
    ]


def test_flood_of_errors_is_limited(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ErrorLines("worker")

    for _ in range(1000):
        lines.emit(error("failed"))

    assert capsys.readouterr().out.splitlines() == [
        *["worker error: failed"] * 5,
        "worker error: more errors within 10 s are only in the log",
    ]


async def test_growing_log_is_truncated_during_the_run(tmp_path: Path) -> None:
    log, other = tmp_path / "api.log", tmp_path / "worker.log"
    other.write_bytes(b"short\n")
    cutting = asyncio.create_task(rotate_logs(tmp_path, max_bytes=1000, check_seconds=0.01))
    try:
        with log.open("ab", buffering=0) as writer:
            writer.write(b"a" * 1001)

            async def is_cut() -> bool:
                return log.stat().st_size == 0

            await until(is_cut)
            writer.write(b"b")
    finally:
        cutting.cancel()

    assert log.read_bytes() == b"b"
    assert (tmp_path / "api.old.log").read_bytes() == b"a" * 1001
    assert other.read_bytes() == b"short\n"
    assert not (tmp_path / "worker.old.log").exists()
