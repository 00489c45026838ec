"""Each request and each job is one line of JSON in the log, without secrets."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.storage import Storage
from segmentql.settings import Settings
from tests.back_dating import HOUR, NOON, insert_membership
from tests.conftest import Api, RunWorker, Sql, serving, until
from tests.keys.clients import Key, make_key
from tests.operations import create_user, make_segments

USER = "query Which($id: ID!) { user(id: $id) { id segments { slug } } }"
BRIEFLY_IN = """
mutation { updateUserSegments(input: {userId: 7, add: ["beta"], ttlSeconds: 1}) { segmentsAdded } }
"""
DELETE_BETA = 'mutation { deleteSegment(input: {slug: "beta"}) { deletedId } }'
REPORT = """
mutation {
  createReport(input: {userId: 7, year: 2024, month: 3, waitSeconds: 30}) {
    report { status downloadUrl }
  }
}
"""


def lines(text: bytes) -> list[dict[str, Any]]:
    """Parse the log lines, each of which must have an event, a level and a UTC timestamp."""
    entries = [orjson.loads(line) for line in text.splitlines()]
    for line in entries:
        assert isinstance(line["event"], str)
        assert line["level"] in {"debug", "info", "warning", "error", "critical"}
        assert datetime.fromisoformat(line["timestamp"]).utcoffset() is not None
        assert line["timestamp"].endswith("Z")
    return entries


class LoggedApp:
    """An application with required keys, an API key, and the captured log."""

    def __init__(self, api: Api, key: Key, written: pytest.CaptureFixture[bytes]) -> None:
        self.api = api
        self.key = key
        self._written = written

    async def send(
        self, request_id: str, query: str, token: str | None = None, **values: Any
    ) -> Any:
        return await self.api.http.post(
            "/graphql",
            json={"query": query, "variables": values},
            headers={
                "authorization": f"Bearer {token or self.key.token}",
                "x-request-id": request_id,
            },
        )

    def raw(self) -> bytes:
        """Return the output since the last call."""
        return self._written.readouterr().err

    def lines(self) -> list[dict[str, Any]]:
        return lines(self.raw())


@pytest.fixture
async def logged(
    settings: Settings, database: Database, capsysbinary: pytest.CaptureFixture[bytes]
) -> AsyncIterator[LoggedApp]:
    async with serving(_logging(settings)) as api:
        yield LoggedApp(api, await make_key(database, "ADMIN", "ada"), capsysbinary)


def _logging(settings: Settings, **changes: str) -> Settings:
    return settings.model_copy(update={"auth": "required", "log_format": "json", **changes})


async def test_request_is_one_line(logged: LoggedApp) -> None:
    response = await logged.send("r-1", USER, id="7")
    (line,) = logged.lines()
    assert isinstance(line.pop("timestamp"), str)
    assert 0 < line.pop("duration_ms") < 60_000
    assert line == {
        "event": "request",
        "level": "info",
        "logger": "segmentql.requests",
        "request_id": "r-1",
        "operation": "Which",
        "outcome": "done",
        "cost": response.json()["extensions"]["cost"]["estimated"],
        "key": "ada",
    }


@pytest.mark.parametrize(
    ("query", "operation", "outcome"),
    [
        ('{ user(id: "0") { id } }', "user", "failed"),
        ("{ nothing }", "invalid", "rejected"),
        ("{ user(", "invalid", "rejected"),
    ],
)
async def test_outcome_of_a_request_is_logged(
    logged: LoggedApp, query: str, operation: str, outcome: str
) -> None:
    await logged.send("r-1", query)
    (line,) = logged.lines()
    assert (line["operation"], line["outcome"], line["key"]) == (operation, outcome, "ada")


async def test_request_rejected_by_http_is_logged_with_its_status(logged: LoggedApp) -> None:
    await logged.send("r-1", USER, token="nonsense", id="7")
    (line,) = logged.lines()
    assert isinstance(line.pop("timestamp"), str)
    assert line == {
        "event": "request_refused",
        "level": "info",
        "logger": "segmentql.requests",
        "request_id": "r-1",
        "status": 401,
        "code": "UNAUTHENTICATED",
        "reason": "the API key is malformed",
    }


async def test_secrets_values_and_documents_are_not_logged(logged: LoggedApp) -> None:
    wrong = logged.key.with_wrong_secret
    await logged.send("r-1", USER, id="7654321")
    await logged.send("r-2", "{ user(id: 7654321) { id nothing } }")
    await logged.send("r-3", USER, token=wrong, id="7654321")
    text = logged.raw()
    assert [line["request_id"] for line in lines(text)] == ["r-1", "r-2", "r-3"]
    for secret in (logged.key.token, wrong, "7654321", "nothing", "user(id"):
        assert secret.encode() not in text


async def test_unread_log_fails_no_request(
    logged: LoggedApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    unread = os.fdopen(write_end, "w")
    monkeypatch.setattr(sys, "stderr", unread)
    assert (await logged.send("r-1", USER, id="7")).status_code == 200
    with pytest.raises(BrokenPipeError):
        unread.close()
    assert (await logged.send("r-1", USER, id="7")).status_code == 200


@pytest.mark.parametrize("changes", [{"log_requests": "off"}, {"log_level": "warning"}])
async def test_request_log_can_be_disabled(
    settings: Settings,
    database: Database,
    capsysbinary: pytest.CaptureFixture[bytes],
    changes: dict[str, str],
) -> None:
    key = await make_key(database, "READER")
    async with serving(_logging(settings, **changes)) as api:
        unlogged = LoggedApp(api, key, capsysbinary)
        assert (await unlogged.send("r-1", USER, id="7")).status_code == 200
        assert unlogged.raw() == b""


async def test_job_has_the_id_of_its_request(
    api: Api, run_worker: RunWorker, tmp_path: Path
) -> None:
    await make_segments(api, "beta")

    async def entries() -> list[dict[str, Any]]:
        return [
            line
            for line in lines((tmp_path / "worker-1.log").read_bytes())
            if line.get("job") == "expire_due_memberships" and line.get("request_id") == "r-7"
        ]

    async with run_worker(SEGMENTQL_SCHEDULER="off"):
        await _send_with_id(api, BRIEFLY_IN, "r-7")
        await until(entries)
    (line,) = await entries()
    assert (line["event"], line["level"], line["args"]) == ("job_done", "info", [])
    assert 0 <= line["duration_ms"] < 60_000


async def test_failed_job_is_logged_with_its_own_request_id(
    api: Api, sql: Sql, run_worker: RunWorker, tmp_path: Path
) -> None:
    await make_segments(api, "beta", "ttl")

    def job_events(event: str, job: str) -> Callable[[], Awaitable[list[dict[str, Any]]]]:
        async def matching_lines() -> list[dict[str, Any]]:
            entries = lines((tmp_path / "worker-1.log").read_bytes())
            return [line for line in entries if (line["event"], line.get("job")) == (event, job)]

        return matching_lines

    failed, completed = (
        job_events(event, "record_segment_leaves") for event in ("job_failed", "job_done")
    )
    scheduler_jobs = job_events("job_done", "expire_due_memberships")
    async with run_worker(SEGMENTQL_WORKER_THREADS="1"):
        await sql.execute("ALTER TABLE exclusions RENAME TO lost")
        try:
            await _send_with_id(api, DELETE_BETA, "r-8")
            await until(failed)
        finally:
            await sql.execute("ALTER TABLE lost RENAME TO exclusions")
        await until(completed)
        await insert_membership(sql, 1, "ttl", joined_at=NOON, expires_at=NOON + HOUR)
        await until(scheduler_jobs)
    line = (await failed())[0]
    assert (line["level"], line["reason"], line["args"]) == ("warning", "ProgrammingError", [1])
    assert (await failed())[0].get("request_id") == "r-8"
    assert "request_id" not in (await scheduler_jobs())[0]
    tracebacks = [
        line
        for line in lines((tmp_path / "worker-1.log").read_bytes())
        if "exclusions" in line.get("exception", "")
    ]
    assert {line["job"] for line in tracebacks} == {"record_segment_leaves"}


@pytest.mark.slow
def test_traceback_on_a_terminal_shows_no_variables() -> None:
    """They may hold keys; `rich`, which is installed here, would show them."""
    program = """
import structlog
from segmentql import logs
from segmentql.settings import Settings
logs.configure(Settings.model_construct(log_format="console", log_level="info"))
def fail(secret):
    raise ValueError
try:
    fail("hu" + "sh")
except ValueError:
    structlog.get_logger().exception("failed")
"""
    stderr = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stderr
    assert b"ValueError" in stderr
    assert b"hush" not in stderr


@pytest.mark.parametrize(("setting", "printed"), [("off", b""), ("on", b"API error: failed\n")])
def test_errors_can_be_printed_on_standard_output(setting: str, printed: bytes) -> None:
    # It is a separate process, because `configure` changes the logging of the whole process.
    program = """
import logging, sys, structlog
from segmentql import logs
from segmentql.settings import Settings
logs.configure(
    Settings.model_construct(
        log_format="json", log_level="info", log_errors_to_stdout=sys.argv[1]
    ),
    program="API",
)
structlog.get_logger().warning("slow")
structlog.get_logger().error("failed")
"""
    result = subprocess.run(
        [sys.executable, "-c", program, setting], capture_output=True, check=True
    )
    assert result.stdout == printed
    assert [line["event"] for line in lines(result.stderr)] == ["slow", "failed"]


async def test_worker_log_has_no_links_or_secrets(
    api: Api, settings: Settings, storage: Storage, run_worker: RunWorker, tmp_path: Path
) -> None:
    async with run_worker(SEGMENTQL_LOG_LEVEL="debug"):
        await create_user(api, id="7")
        payload = (await _send_with_id(api, REPORT, "r-9"))["createReport"]
    assert payload["report"]["status"] == "READY"
    text = (tmp_path / "worker-1.log").read_bytes()
    report_lines = [line for line in lines(text) if line.get("job") == "make_report"]
    assert {line.get("request_id") for line in report_lines} == {"r-9"}
    assert b"X-Amz-Signature" not in text
    for secret in (settings.s3_secret_key, settings.database_url, settings.redis_url):
        assert secret is not None
        assert secret.encode() not in text


async def _send_with_id(api: Api, query: str, request_id: str) -> Any:
    response = await api.http.post(
        "/graphql", json={"query": query}, headers={"x-request-id": request_id}
    )
    body = response.json()
    assert "errors" not in body, body
    return body["data"]
