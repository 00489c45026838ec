"""`segmentql changes` prints the change feed as JSON lines, and continues at a stored cursor."""

import asyncio
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from segmentql.cli import changes as command
from segmentql.history.settled import HistoryCursor
from segmentql.settings import Settings
from tests.cli.api_process import run_command
from tests.conftest import PATIENCE_SECONDS, Api, Sql, environment, recorded_statements, until
from tests.operations import make_segments, update_user_segments
from tests.timeline import HOUR, add_membership, make_segment

ALL: Final = ("changes", "--from", "earliest", "--no-follow")
HISTORY: Final = "{ history(first: 100) { nodes { id } } }"


def parse(lines: str | bytes) -> list[Any]:
    return [orjson.loads(line) for line in lines.splitlines()]


def names(lines: str | bytes) -> list[tuple[str, str, str]]:
    return [(line["operation"], line["userId"], line["segment"]["slug"]) for line in parse(lines)]


@pytest.fixture
async def two_changes(api: Api) -> None:
    """Let the user 1 join `a`, and the user 2 join `b`."""
    await make_segments(api, "a", "b")
    await update_user_segments(api, 1, add=["a"])
    await update_user_segments(api, 2, add=["b"])


@pytest.mark.usefixtures("two_changes")
async def test_all_changes_are_printed_in_order(api: Api, address: str) -> None:
    await update_user_segments(api, 1, remove=["a"])
    result = await run_command(*ALL, SEGMENTQL_URL=address)
    assert (result.code, result.errors) == (0, "")
    entries = (await api(HISTORY))["history"]["nodes"]
    assert [line["id"] for line in parse(result.output)] == [
        entry["id"] for entry in reversed(entries)
    ]
    assert names(result.output) == [("JOINED", "1", "a"), ("JOINED", "2", "b"), ("LEFT", "1", "a")]
    assert set(parse(result.output)[0]) == {
        *("cursor", "at", "id", "operation", "userId", "userKey", "cause", "actor"),
        *("recordedAt", "segment"),
    }


@pytest.mark.usefixtures("two_changes")
async def test_changes_after_a_cursor_are_printed(address: str) -> None:
    result = await run_command(*ALL, SEGMENTQL_URL=address)
    first = parse(result.output)[0]["cursor"]
    result = await run_command("changes", "--from", first, "--no-follow", SEGMENTQL_URL=address)
    assert names(result.output) == [("JOINED", "2", "b")]


@pytest.mark.usefixtures("two_changes")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--slug", "b"], [("JOINED", "2", "b")]),
        (["--slug", "a", "--slug", "b"], [("JOINED", "1", "a"), ("JOINED", "2", "b")]),
        (["--user", "1"], [("JOINED", "1", "a")]),
        (["--user", "1", "--slug", "b"], []),
    ],
)
async def test_options_select_changes(
    address: str, options: list[str], expected: list[Any]
) -> None:
    result = await run_command(*ALL, *options, SEGMENTQL_URL=address)
    assert (result.code, names(result.output)) == (0, expected)


@pytest.mark.usefixtures("two_changes")
async def test_state_file_continues_where_the_last_command_ended(
    api: Api, address: str, tmp_path: Path
) -> None:
    state = tmp_path / "state.json"

    async def run(*options: str) -> list[Any]:
        result = await run_command(
            *("changes", "--no-follow", "--state", str(state), *options), SEGMENTQL_URL=address
        )
        assert (result.code, result.errors) == (0, "")
        return names(result.output)

    assert await run("--from", "earliest") == [("JOINED", "1", "a"), ("JOINED", "2", "b")]
    assert await run() == []
    await update_user_segments(api, 3, add=["a"])
    assert await run() == [("JOINED", "3", "a")]
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


async def test_new_state_file_begins_now(api: Api, address: str, tmp_path: Path) -> None:
    await make_segments(api, "a")
    await update_user_segments(api, 1, add=["a"])
    options = ("changes", "--no-follow", "--state", str(tmp_path / "state.json"))
    assert (await run_command(*options, SEGMENTQL_URL=address)).output == ""
    await update_user_segments(api, 2, add=["a"])
    result = await run_command(*options, SEGMENTQL_URL=address)
    assert names(result.output) == [("JOINED", "2", "a")]


async def test_given_cursor_is_stored_without_a_change(
    api: Api, address: str, tmp_path: Path
) -> None:
    """Otherwise the next command, without --from, would begin at the newest change."""
    await make_segments(api, "a")
    await update_user_segments(api, 1, add=["a"])
    everything = await run_command(*ALL, SEGMENTQL_URL=address)
    cursor = parse(everything.output)[-1]["cursor"]
    options = ("changes", "--no-follow", "--state", str(tmp_path / "state.json"))
    assert (await run_command(*options, "--from", cursor, SEGMENTQL_URL=address)).output == ""
    assert orjson.loads((tmp_path / "state.json").read_bytes()) == {"cursor": cursor}
    await update_user_segments(api, 2, add=["a"])
    result = await run_command(*options, SEGMENTQL_URL=address)
    assert names(result.output) == [("JOINED", "2", "a")]


@pytest.mark.parametrize(
    ("options", "state", "expected"),
    [
        (["--from", ""], None, (2, "the cursor is empty")),
        (["--from", "chg_x"], '{"cursor": "chg_y"}', (2, "already has a cursor")),
        ([], "not JSON", (1, "does not have a cursor")),
        ([], '{"cursor": 7}', (1, "does not have a cursor")),
        (["--slug", "-"], None, (2, "--slug")),
        (["--user", "0"], None, (2, "--user")),
        (["--from", "chg_x", "--no-follow"], None, (2, "cursor")),
        (["--from", "bad"], None, (2, "cursor")),
        (["--slug", "a"] * 101, None, (2, "filter.slugs: 101 exceeds the limit of 100")),
    ],
)
async def test_bad_input_is_an_error(
    address: str,
    tmp_path: Path,
    options: list[str],
    state: str | None,
    expected: tuple[int, str],
) -> None:
    code, message = expected
    path = tmp_path / "state.json"
    if state is not None:
        path.write_text(state)
    result = await run_command("changes", "--state", str(path), *options, SEGMENTQL_URL=address)
    assert (result.code, result.output) == (code, "")
    assert message in result.errors
    assert path.exists() == (state is not None)


@pytest.mark.usefixtures("two_changes")
async def test_cursor_of_a_lost_change_ends_the_command(address: str) -> None:
    result = await run_command(*ALL, SEGMENTQL_URL=address)
    cursor = HistoryCursor.decode(parse(result.output)[-1]["cursor"])
    # After a restore and further changes, another change has the position of the lost one.
    lost = replace(cursor, fingerprint="0" * 16).encode()
    result = await run_command("changes", "--from", lost, "--no-follow", SEGMENTQL_URL=address)
    assert (result.code, result.output) == (3, "")
    assert "Export the segment again" in result.errors


async def test_no_follow_pauses_while_a_change_is_being_recorded(address: str, sql: Sql) -> None:
    """Another transaction locks the user. Without pauses, a second has a hundred requests."""
    await add_membership(sql, 1, await make_segment(sql, "a"), ends_in=-HOUR)

    async def has_begun() -> bool:
        return any("leaves_recorded_at IS NULL" in each for each in statements)

    async with sql.transaction():
        await sql.execute("SELECT FROM users WHERE id = 1 FOR NO KEY UPDATE")
        with recorded_statements() as statements:
            command_run = asyncio.create_task(run_command(*ALL, SEGMENTQL_URL=address))
            await until(has_begun)
            await asyncio.sleep(1)  # the pauses are 0.2, 0.4 and 0.8 s
            assert sum("leaves_recorded_at IS NULL" in each for each in statements) < 30
            assert not command_run.done()
    result = await command_run
    assert names(result.output) == [("JOINED", "1", "a"), ("LEFT", "1", "a")]


@pytest.mark.slow  # It starts a process.
async def test_command_follows_the_feed_until_ctrl_c(
    api: Api, address: str, settings: Settings, tmp_path: Path
) -> None:
    await make_segments(api, "a")
    state, output = tmp_path / "state.json", tmp_path / "output"
    # Background jobs ignore SIGINT, and their child processes would inherit that.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    with output.open("wb") as stdout:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "segmentql", "changes", "--state", str(state)),
            stdout=stdout,
            env=environment(settings, SEGMENTQL_URL=address),
        )
    signal.signal(signal.SIGINT, previous)
    try:
        await until(lambda: asyncio.to_thread(state.exists))
        await update_user_segments(api, 1, add=["a"])
        await until(lambda: asyncio.to_thread(output.read_bytes))
        assert names(output.read_bytes()) == [("JOINED", "1", "a")]
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.wait() == command.INTERRUPTED_EXIT_CODE
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert orjson.loads(state.read_bytes())["cursor"] == parse(output.read_bytes())[-1]["cursor"]
