"""`segmentql import` reports faults in one line and cancels an import that it cannot finish."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from segmentql.adapters.database import Database
from segmentql.app import create_app
from segmentql.cli import api_client
from segmentql.local.ports import free_port
from segmentql.settings import Settings
from segmentql.tables import Role
from tests.cli.api_process import CommandResult, RunImport, listening, run_command
from tests.conftest import PATIENCE_SECONDS, Api, RunWorker, Sql, environment, serving, until
from tests.keys.clients import make_key
from tests.network_cut import NetworkLink
from tests.operations import make_segments, update_user_segments

MEMBERS = "SELECT array_agg(user_id ORDER BY user_id) FROM memberships"
STATUS = "SELECT status FROM imports"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--segment", "a b"), "is not a slug; allowed"),
        (("--segment", "other"), 'Error: No segment has the slug "other".'),
        (("--column", "x", "--column-number", "1"), "exclude each other"),
        (("--ttl", "1", "--expires-at", "2031-01-01T00:00:00Z"), "exclude each other"),
        (("--dry-run", "--allow-removals", "1"), "exclude each other"),
        (("--dry-run", "--result", "x.csv"), "exclude each other"),
        (("--expires-at", "2031-01-01"), "allowed: a time such as"),
        (("--expires-at", "2001-01-01T00:00:00Z"), "Error: "),
        (("--mode", "remove", "--ttl", "1"), "the mode REMOVE adds no user"),
        (("--ttl", "0"), "0 is not in the range"),
        (("--column", ""), "Error: "),
        (("--url", "ftp://x"), "must be like http://127.0.0.1:8080"),
        (("--url", "http://user:secret@x"), "must be like http://127.0.0.1:8080"),
    ],
)
async def test_invalid_values_are_rejected_before_the_upload(
    import_list: RunImport, sql: Sql, options: tuple[str, ...], message: str
) -> None:
    result = await import_list(b"5\n", *options)
    assert (result.code, result.output) == (2, "")
    assert message in result.errors
    assert await sql.fetchval("SELECT count(*) FROM imports") == 0


async def test_unreadable_files_are_reported(address: str, api: Api, tmp_path: Path) -> None:
    await make_segments(api, "a")
    for path, message in (("missing.csv", "does not exist"), (str(tmp_path), "is a directory")):
        result = await run_command("import", path, "--segment", "a", SEGMENTQL_URL=address)
        assert (result.code, result.output) == (2, "")
        assert message in result.errors


async def test_file_above_the_limit_is_not_uploaded(
    import_list: RunImport, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segmentql.cli.list_file.MAX_UPLOAD_BYTES", 3)
    result = await import_list(b"12\n\n")
    assert (result.code, result.errors) == (
        1,
        "Error: The file is larger than 3 bytes. Pack it with gzip, or split it.\n",
    )
    assert await sql.fetchval("SELECT count(*) FROM imports") == 0


async def test_missing_and_wrong_keys_are_rejected(
    auth_settings: Settings, database: Database, s3: object, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(b"7\n")
    reader = await make_key(database, Role.READER)
    app = create_app(auth_settings)
    async with serving(auth_settings, app=app), listening(app) as address:

        async def run_with(key: str) -> CommandResult:
            return await run_command(
                *("import", str(path), "--segment", "a"),
                SEGMENTQL_URL=address,
                SEGMENTQL_API_KEY=key,
            )

        for key, message in (
            ("", "Send an API key"),
            ("sgql_aaaaaaaaaaaa_" + "0" * 64, "This API key is not valid."),
            (reader.token, "EDITOR"),
            ("a\nb", "SEGMENTQL_API_KEY has a character that no API key has."),
        ):
            result = await run_with(key)
            assert (result.code, result.output) == (1, "")
            assert message in result.errors
            assert result.errors.count("\n") == 1
            assert key not in result.errors or not key
        editor = await make_key(database, Role.EDITOR)
        result = await run_with(editor.token)
        assert (result.code, result.errors) == (2, 'Error: No segment has the slug "a".\n')


async def test_servers_that_are_no_api_are_reported_in_one_line(
    address: str, import_list: RunImport, settings: Settings
) -> None:
    nothing = f"http://127.0.0.1:{free_port()}"
    result = await import_list(b"5\n", "--url", nothing)
    assert (result.code, result.output) == (1, "")
    assert result.errors == (f"Error: {nothing}/graphql does not respond: Connection refused.\n")
    for url in (settings.store.endpoint_url, f"{address}/static"):
        result = await import_list(b"5\n", "--url", url)
        assert (result.code, result.output) == (1, "")
        assert "is not the API of SegmentQL" in result.errors
        assert result.errors.count("\n") == 1


class FirstConnectionsCut(NetworkLink):
    """A link that cuts the first connections."""

    def __init__(self, url: str, cut_connections: int) -> None:
        super().__init__(url)
        self.cut_connections = cut_connections

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._is_cut = self.attempts < self.cut_connections
        await super()._connect(reader, writer)


@asynccontextmanager
async def api_behind_cut(
    settings: Settings, cut_connections: int
) -> AsyncIterator[tuple[str, FirstConnectionsCut]]:
    """Serve an API whose clients reach the store over a link that cuts connections."""
    async with FirstConnectionsCut(settings.store.endpoint_url, cut_connections).open() as link:
        behind = settings.model_copy(update={"s3_public_endpoint_url": link.url})
        app = create_app(behind)
        async with serving(behind, app=app), listening(app) as address:
            assert isinstance(link, FirstConnectionsCut)
            yield address, link


@pytest.mark.usefixtures("import_worker")
async def test_upload_is_repeated_once(
    import_list: RunImport, settings: Settings, sql: Sql
) -> None:
    async with api_behind_cut(settings, cut_connections=1) as (address, link):
        result = await import_list(b"5\n", "--url", address)
        assert (result.code, link.attempts) == (0, 2)
    assert "does not respond" in result.errors
    assert "Uploading again." in result.errors
    assert await sql.fetchval(MEMBERS) == [5]


async def test_failed_upload_cancels_the_import(
    import_list: RunImport, settings: Settings, sql: Sql
) -> None:
    async with api_behind_cut(settings, cut_connections=2) as (address, link):
        result = await import_list(b"5\n", "--url", address)
        assert (result.code, result.output, link.attempts) == (1, "", 2)
    assert result.errors.splitlines()[1].endswith(
        " The import imp_1 was not started, and nothing was applied."
    )
    assert "Traceback" not in result.errors
    assert await sql.fetchval(STATUS) == "CANCELLED"


async def test_interrupted_upload_cancels_the_import(
    import_list: RunImport, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api_client, "upload", interrupt)
    result = await import_list(b"5\n")
    assert (result.code, result.output, result.errors) == (
        130,
        "",
        "The import imp_1 was cancelled. Nothing was applied.\n",
    )
    assert await sql.fetchval(STATUS) == "CANCELLED"


@pytest.mark.slow  # starts a process of the command
async def test_ctrl_c_cancels_a_started_import(
    address: str, api: Api, sql: Sql, settings: Settings, tmp_path: Path
) -> None:
    await make_segments(api, "a")
    (tmp_path / "list.csv").write_bytes(b"5\n")
    # If tests run in the background, they and their children ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", "import", "list.csv", "--segment", "a"),
        cwd=tmp_path,
        env=environment(settings, SEGMENTQL_URL=address),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    signal.signal(signal.SIGINT, before)

    async def is_queued() -> bool:
        return bool(await sql.fetchval(STATUS) == "QUEUED")

    await until(is_queued)
    process.send_signal(signal.SIGINT)
    output, errors = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert (process.returncode, output, errors.decode()) == (
        130,
        b"",
        "The import imp_1 was cancelled. What was applied stays.\n",
    )
    assert await sql.fetchval(STATUS) == "CANCELLED"


@pytest.mark.slow  # starts a process of the command and a worker
async def test_terminal_shows_the_progress(
    address: str, api: Api, settings: Settings, run_worker: RunWorker, tmp_path: Path
) -> None:
    await make_segments(api, "a")
    await update_user_segments(api, 7, add=["a"])
    (tmp_path / "list.csv").write_bytes(b"".join(b"%d\n" % n for n in range(1, 5_001)))
    controller, terminal = os.openpty()
    async with run_worker():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "segmentql", "import", "list.csv", "--segment", "a"),
            cwd=tmp_path,
            env=environment(settings, SEGMENTQL_URL=address, COLUMNS="80"),
            stdout=asyncio.subprocess.PIPE,
            stderr=terminal,
        )
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    os.close(terminal)
    os.set_blocking(controller, False)
    shown = os.read(controller, 1_000_000).decode()
    os.close(controller)
    assert process.returncode == 0
    assert "JOINED        4,999\n  ALREADY_IN        1\n" in output.decode()
    assert "uploading" in shown
    assert "completed  [" + "#" * 36 + "]  100%" in shown
