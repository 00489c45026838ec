"""`segmentql report` writes the file of a month in full or not at all."""

import asyncio
import os
import select
import signal
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from segmentql.adapters.database import Database
from segmentql.reports.csv_export import CsvExport
from segmentql.reports.records import ReportScope
from segmentql.settings import Settings
from tests.back_dating import insert_past_membership
from tests.cli.report_process import (
    Start,
    read_to_end,
    report_command,
    running_report,
    wait_for_exit,
)
from tests.conftest import Api, Sql, until
from tests.operations import make_segments

pytestmark = pytest.mark.slow  # each test starts a process of the command

MARCH = datetime(2024, 3, 1, tzinfo=UTC)
CSV = b"""\
user_id,segment_slug,operation,executed_at
7,a,I,2024-03-01 00:00:00
7,a,D,2024-03-02 00:00:00
"""


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Start:
    """Return a function that starts `segmentql report` in an empty folder."""
    return partial(report_command, settings, tmp_path)


@pytest.fixture
async def history(api: Api, sql: Sql) -> None:
    """Store memberships of users 1 to 9 in `a` for a day of March 2024."""
    await make_segments(api, "a")
    for user_id in range(1, 10):
        await sql.execute("INSERT INTO users VALUES ($1, $2)", user_id, MARCH)
        await insert_past_membership(
            sql, user_id, "a", joined_at=MARCH, left_at=MARCH.replace(day=2)
        )


@pytest.fixture
async def long_history(sql: Sql, history: None) -> None:
    """Store 100,000 more joins, 3 MB: far more than the buffers of pipes and sockets."""
    await sql.execute(
        """
        INSERT INTO history
            (user_id, at, segment_id, operation, membership_id, cause, recorded_at)
        SELECT n, $1, 1, 'JOINED', n, 'MANUAL', $1 FROM generate_series(1000, 100999) AS n
        """,
        MARCH,
    )


async def test_with_keys_adds_a_fifth_column(start: Start, history: None, sql: Sql) -> None:
    await sql.execute("UPDATE users SET key = 'a, b' WHERE id = 7")
    month = ("--month", "2024-03", "--user", "7", "--output", "-")
    async with start(*month, "--with-keys") as process:
        status, stdout, _ = await wait_for_exit(process)
    first, *rows = CSV.split(b"\n")[:-1]
    expected = [first + b",user_key", *(row + b',"a, b"' for row in rows)]
    assert (status, stdout) == (0, b"\n".join(expected) + b"\n")
    async with start(*month) as process:
        assert (await wait_for_exit(process))[1] == CSV


async def test_month_of_all_users_equals_the_report(
    start: Start, history: None, long_history: None, database: Database, tmp_path: Path
) -> None:
    async with database.long_read(seconds=30) as session:
        chunks = CsvExport(session, ReportScope(2024, 3, None)).chunks()
        expected = b"".join([chunk async for chunk in chunks])
    async with start("--month", "2024-03", "-o", "march.csv") as process:
        assert await wait_for_exit(process) == (0, b"", "100018 rows in march.csv\n")
    assert (tmp_path / "march.csv").read_bytes() == expected
    assert os.listdir(tmp_path) == ["march.csv"]


async def test_file_is_named_by_user_and_month_by_default(
    start: Start, history: None, tmp_path: Path
) -> None:
    async with start("--month", "2024-03", "--user", "7") as process:
        assert await wait_for_exit(process) == (0, b"", "2 rows in segments-7-2024-03.csv\n")
    async with start("--month", "2024-02") as process:
        assert await wait_for_exit(process) == (0, b"", "0 rows in segments-all-2024-02.csv\n")
    assert (tmp_path / "segments-7-2024-03.csv").read_bytes() == CSV
    assert (
        tmp_path / "segments-all-2024-02.csv"
    ).read_bytes() == b"user_id,segment_slug,operation,executed_at\n"
    assert len(os.listdir(tmp_path)) == 2


async def test_dash_writes_only_the_bytes_to_standard_output(
    start: Start, history: None, tmp_path: Path
) -> None:
    async with start("--month", "2024-03", "--user", "7", "-o", "-") as process:
        assert await wait_for_exit(process) == (0, CSV, "")
    assert os.listdir(tmp_path) == []


async def test_special_file_is_written_to_and_not_replaced(
    start: Start, history: None, tmp_path: Path
) -> None:
    """An example is /dev/null, which root could replace."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with start("--month", "2024-03", "--user", "7", "-o", "pipe") as process:
        assert await asyncio.to_thread(pipe.read_bytes) == CSV
        assert await wait_for_exit(process) == (0, b"", "2 rows in pipe\n")
    assert pipe.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


async def test_symbolic_link_is_followed_and_kept(
    start: Start, history: None, tmp_path: Path
) -> None:
    (tmp_path / "link.csv").symlink_to("behind.csv")
    async with start("--month", "2024-03", "--user", "7", "-o", "link.csv") as process:
        assert await wait_for_exit(process) == (0, b"", "2 rows in link.csv\n")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "behind.csv").read_bytes() == CSV


BAD_USAGE = 2


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--user", "7"], BAD_USAGE, "Missing option '--month'"),
        (
            ["--month", "2024-3"],
            BAD_USAGE,
            "'2024-3' is not a month; allowed: a month such as 2023-09",
        ),
        (["--month", "2024-00"], BAD_USAGE, "allowed: 1 to 12"),
        (["--month", "2024-13"], BAD_USAGE, "allowed: 1 to 12"),
        (["--month", "1999-12"], BAD_USAGE, "allowed: 2000 to 9999"),
        (["--month", "2024-03", "--user", "x"], BAD_USAGE, "allowed: a decimal number"),
        (["--month", "2024-03", "--user", "0"], BAD_USAGE, "allowed: a decimal number"),
        (["--month", "9999-12"], 1, "Error: 9999-12 is in the future; allowed: a month up to 2"),
        (["--month", "2024-03", "--user", "404"], 1, "Error: User 404 was never stored.\n"),
        (
            ["--month", "2024-03", "-o", "nowhere/a.csv"],
            1,
            "Error: cannot write nowhere/a.csv: No such file or directory\n",
        ),
        (
            ["--month", "2024-03", "-o", "kept.csv/a.csv"],
            1,
            "Error: cannot write kept.csv/a.csv: Not a directory\n",
        ),
        (["--month", "2024-03", "-o", "."], BAD_USAGE, "File '.' is a directory"),
        (["--month", "2024-03", "-o", ""], BAD_USAGE, "the name of the file is empty"),
        (["--month", "2024-03", "--user", ""], BAD_USAGE, "allowed: a decimal number"),
    ],
)
async def test_invalid_arguments_are_reported_and_nothing_is_written(
    start: Start, tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    existing_file = tmp_path / "kept.csv"
    existing_file.write_text("kept")
    async with start(*arguments) as process:
        exit_status, output, error_output = await wait_for_exit(process)
    assert (exit_status, output) == (status, b"")
    assert message in error_output
    assert "Traceback" not in error_output
    assert os.listdir(tmp_path) == ["kept.csv"]
    assert existing_file.read_text() == "kept"


async def test_future_month_is_rejected(start: Start, sql: Sql, tmp_path: Path) -> None:
    now = await sql.fetchval("SELECT clock_timestamp() AT TIME ZONE 'UTC'")
    following = now.replace(day=1) + timedelta(days=32)
    async with start("--month", f"{following:%Y-%m}") as process:
        assert await wait_for_exit(process) == (
            1,
            b"",
            f"Error: {following:%Y-%m} is in the future; "
            f"allowed: a month up to {now:%Y-%m}, the current one in UTC.\n",
        )
    assert os.listdir(tmp_path) == []


async def test_unreachable_database_is_reported_with_advice(
    start: Start, sql: Sql, tmp_path: Path
) -> None:
    unreachable = "postgresql://segmentql:secret@127.0.0.1:1/segmentql"
    async with start("--month", "2024-03", SEGMENTQL_DATABASE_URL=unreachable) as process:
        assert await wait_for_exit(process) == (
            1,
            b"",
            "Error: the database does not respond in time; run `segmentql doctor` for details\n",
        )
    assert os.listdir(tmp_path) == []


async def test_database_lost_during_the_report_leaves_no_file(
    start: Start, long_history: None, sql: Sql, tmp_path: Path
) -> None:
    async with running_report(start, sql, tmp_path) as (process, reader):
        await sql.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE query LIKE 'COPY%'"
        )
        await asyncio.to_thread(read_to_end, reader)
        assert await wait_for_exit(process) == (
            1,
            b"",
            "Error: the database does not respond in time; run `segmentql doctor` for details\n",
        )
    assert os.listdir(tmp_path) == []


async def test_ctrl_c_leaves_no_file(
    start: Start, long_history: None, sql: Sql, tmp_path: Path
) -> None:
    async with running_report(start, sql, tmp_path) as (process, reader):
        process.send_signal(signal.SIGINT)
        await asyncio.to_thread(read_to_end, reader)
        status, _, error_output = await wait_for_exit(process)
    assert (status, error_output.strip()) == (1, "Aborted!")
    assert os.listdir(tmp_path) == []


async def test_lost_reader_ends_the_command_by_sigpipe(start: Start, long_history: None) -> None:
    read, write = os.pipe()

    async def is_full() -> bool:
        return not select.select([], [write], [], 0)[1]

    with os.fdopen(write, "wb") as stdout:
        async with start("--month", "2024-03", "-o", "-", stdout=stdout) as process:
            # The writer waits for its reader, and the database for the writer.
            await until(is_full)
            os.close(read)
            status, _, error_output = await wait_for_exit(process)
    assert (status, error_output) == (-signal.SIGPIPE, "")


async def test_lost_reader_of_a_named_pipe_ends_the_command(
    start: Start, long_history: None, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with start("--month", "2024-03", "-o", "pipe") as process:
        reader = await asyncio.to_thread(os.open, tmp_path / "pipe", os.O_RDONLY)
        await asyncio.to_thread(os.read, reader, 10)
        os.close(reader)
        status, _, error_output = await wait_for_exit(process)
    assert (status, error_output) == (-signal.SIGPIPE, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has /dev/full")
@pytest.mark.parametrize("target", ["-", "/dev/full"])
async def test_full_disk_is_reported(start: Start, history: None, target: str) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    async with start("--month", "2024-03", "-o", target, stdout=full) as process:
        status, _, error_output = await wait_for_exit(process)
    os.close(full)
    expected = f"Error: cannot write {target}: No space left on device\n"
    assert (status, error_output) == (1, expected)
