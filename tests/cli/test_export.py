"""`segmentql export` writes the members of a segment to a file, which can be imported again.

A test takes a second or more, because each export waits for the worker.
"""

import asyncio
import gzip
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from segmentql.adapters.database import Database
from segmentql.adapters.storage import Storage
from segmentql.cli.api_client import ApiClient, RequestRejected
from segmentql.command_documents import APPLY_IMPORT, CREATE_EXPORT, READ_EXPORT
from segmentql.csv_files.generation import FileContext
from segmentql.exports.actors import make_export
from segmentql.local.ports import free_port
from tests.cli.api_process import CommandResult, run_command
from tests.conftest import Api, Sql, until
from tests.exports.queries import number, user_ids
from tests.operations import make_segments, update_user_segments

QUEUED = "{ exports(first: 100) { nodes { id status } } }"
HEADER = "user_id,user_key,joined_at,expires_at,cause\n"


@pytest.fixture
async def export_worker(api: Api, database: Database, storage: Storage) -> AsyncIterator[None]:
    """Make exports in this process, as a worker does."""
    context = FileContext(database, storage, retention_days=30)

    async def work() -> None:
        while True:
            for record in (await api(QUEUED))["exports"]["nodes"]:
                if record["status"] == "QUEUED":
                    await make_export(context, number(record["id"]))
            await asyncio.sleep(0.02)

    # Otherwise the worker would log to the standard output of the command.
    with capture_logs():
        task = asyncio.create_task(work())
        yield
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.fixture
async def members(api: Api) -> None:
    """Put the users 5, 7 and 123 into the segment `a`."""
    await make_segments(api, "a", "b")
    for user_id in (7, 5, 123):
        await update_user_segments(api, user_id, add=["a"])


async def run_export(address: str, *options: str) -> CommandResult:
    return await run_command("export", *options, SEGMENTQL_URL=address)


@pytest.mark.usefixtures("members", "export_worker", "import_worker")
async def test_export_can_be_imported_again(address: str, tmp_path: Path, sql: Sql) -> None:
    path = tmp_path / "a.csv"
    result = await run_export(address, "a", "-o", str(path))
    assert (result.code, result.output) == (0, "")
    assert re.fullmatch(
        rf"3 members in {path}, as of \S+Z\. The changes after it begin at the cursor \S+\.\n",
        result.errors,
    )
    text = path.read_text()
    assert text.startswith(HEADER)
    assert user_ids(text) == [5, 7, 123]
    assert os.listdir(tmp_path) == ["a.csv"]
    result = await run_command("import", str(path), "--segment", "b", SEGMENTQL_URL=address)
    assert result.code == 0, result.errors
    same = """
    SELECT array_agg(user_id ORDER BY user_id)
    FROM memberships m JOIN segments s ON s.id = m.segment_id WHERE slug = 'b'
    """
    assert await sql.fetchval(same) == [5, 7, 123]


@pytest.mark.usefixtures("members", "export_worker")
async def test_packed_file_of_a_past_time_has_the_name_of_the_export(
    address: str, tmp_path: Path, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    at = await sql.fetchval("SELECT max(at) FROM history WHERE user_id = 5")
    result = await run_export(address, "a", "--gzip", "--as-of", at.isoformat())
    assert result.code == 0, result.errors
    (name,) = os.listdir(tmp_path)
    assert name == f"a-{at:%Y%m%dT%H%M%S}Z.csv.gz"
    assert user_ids(gzip.decompress((tmp_path / name).read_bytes()).decode()) == [5, 7]


@pytest.mark.usefixtures("members", "export_worker")
async def test_faults_are_reported_in_one_line(address: str, tmp_path: Path) -> None:
    target = ("-o", str(tmp_path / "a.csv"))
    nothing = f"http://127.0.0.1:{free_port()}"
    for arguments, code, message in (
        (("other", *target), 2, 'Error: No segment has the slug "other".'),
        (("a", *target, "--as-of", "2999-01-01T00:00:00Z"), 2, "Error: "),
        (("a", *target, "--url", nothing), 1, "does not respond: Connection refused."),
        (("a", "-o", str(tmp_path / "missing" / "a.csv")), 1, "No such file or directory"),
    ):
        result = await run_export(address, *arguments)
        assert (result.code, result.output, result.errors.count("\n")) == (code, "", 1)
        assert message in result.errors
    for invalid in (("a b",), ("a", "-o", ""), ("a", "--as-of", "yesterday")):
        assert (await run_export(address, *invalid)).code == 2
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("members")
async def test_failed_export_is_reported(address: str, tmp_path: Path, sql: Sql) -> None:
    command = asyncio.create_task(run_export(address, "a", "-o", str(tmp_path / "a.csv")))
    await until(lambda: sql.fetchval("SELECT count(*) FROM exports"))
    await sql.execute(
        "UPDATE exports SET status = 'FAILED', failure = 'the store is full', object_key = NULL,"
        " finished_at = clock_timestamp(), next_attempt_at = NULL"
    )
    result = await command
    assert (result.code, result.output, result.errors) == (
        1,
        "",
        "Error: The export exp_1 failed: the store is full.\n",
    )
    assert os.listdir(tmp_path) == []


async def test_only_a_rejected_value_has_the_exit_code_of_an_invalid_command_line(
    address: str,
) -> None:
    """The commands check their values, so a value of another type stands for a missing check."""

    async def exit_code(document: str, **variables: object) -> int:
        with pytest.raises(RequestRejected) as rejected:
            await asyncio.to_thread(ApiClient(address, None).query, document, **variables)
        return rejected.value.exit_code

    assert await exit_code(CREATE_EXPORT, input={"slug": "a", "asOf": "yesterday"}) == 2
    assert await exit_code(APPLY_IMPORT, input={"id": "imp_1", "allowRemovals": 2**60}) == 2
    assert await exit_code(READ_EXPORT, id=1.5) == 2
    assert await exit_code("{ export { id } }") == 1
    assert await exit_code("{ nope }", id=1) == 1
