"""What is logged: a line of JSON for each request and each job, and nothing that is secret."""

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
    """Every line, each of which must be an object that says what, how grave, and when in UTC."""
    told = [orjson.loads(line) for line in text.splitlines()]
    for line in told:
        assert isinstance(line["event"], str)
        assert line["level"] in {"debug", "info", "warning", "error", "critical"}
        assert datetime.fromisoformat(line["timestamp"]).utcoffset() is not None
        assert line["timestamp"].endswith("Z")
    return told


class Logged:
    """An application that asks for keys, a caller's key, and what was written meanwhile."""

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
        """What was written since this was asked last."""
        return self._written.readouterr().err

    def lines(self) -> list[dict[str, Any]]:
        return lines(self.raw())


@pytest.fixture
async def logged(
    settings: Settings, database: Database, capsysbinary: pytest.CaptureFixture[bytes]
) -> AsyncIterator[Logged]:
    async with serving(_logging(settings)) as api:
        yield Logged(api, await make_key(database, "ADMIN", "ada"), capsysbinary)


def _logging(settings: Settings, **changes: str) -> Settings:
    return settings.model_copy(update={"auth": "required", "log_format": "json", **changes})


async def test_a_request_is_one_line(logged: Logged) -> None:
    answer = await logged.send("r-1", USER, id="7")
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
        "cost": answer.json()["extensions"]["cost"]["estimated"],
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
async def test_how_it_ended_is_told(
    logged: Logged, query: str, operation: str, outcome: str
) -> None:
    await logged.send("r-1", query)
    (line,) = logged.lines()
    assert (line["operation"], line["outcome"], line["key"]) == (operation, outcome, "ada")


async def test_what_is_not_looked_at_is_told_by_its_status(logged: Logged) -> None:
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


async def test_no_secret_no_value_and_no_document_is_written(logged: Logged) -> None:
    wrong = logged.key.with_wrong_secret
    await logged.send("r-1", USER, id="7654321")
    await logged.send("r-2", "{ user(id: 7654321) { id nothing } }")
    await logged.send("r-3", USER, token=wrong, id="7654321")
    text = logged.raw()
    assert [line["request_id"] for line in lines(text)] == ["r-1", "r-2", "r-3"]
    for secret in (logged.key.token, wrong, "7654321", "nothing", "user(id"):
        assert secret.encode() not in text


async def test_a_log_that_nobody_reads_fails_no_request(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
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
async def test_requests_are_logged_only_where_that_is_wanted(
    settings: Settings,
    database: Database,
    capsysbinary: pytest.CaptureFixture[bytes],
    changes: dict[str, str],
) -> None:
    key = await make_key(database, "READER")
    async with serving(_logging(settings, **changes)) as api:
        quiet = Logged(api, key, capsysbinary)
        assert (await quiet.send("r-1", USER, id="7")).status_code == 200
        assert quiet.raw() == b""


async def test_a_job_bears_the_id_of_the_request_that_asked_for_it(
    api: Api, run_worker: RunWorker, tmp_path: Path
) -> None:
    await make_segments(api, "beta")

    async def told() -> list[dict[str, Any]]:
        return [
            line
            for line in lines((tmp_path / "worker-1.log").read_bytes())
            if line.get("job") == "expire_due_memberships" and line.get("request_id") == "r-7"
        ]

    async with run_worker(SEGMENTQL_SCHEDULER="off"):
        await _ask(api, BRIEFLY_IN, "r-7")
        await until(told)
    (line,) = await told()
    assert (line["event"], line["level"], line["args"]) == ("job_done", "info", [])
    assert 0 <= line["duration_ms"] < 60_000


async def test_a_job_that_fails_says_so_and_lends_its_id_to_no_other(
    api: Api, sql: Sql, run_worker: RunWorker, tmp_path: Path
) -> None:
    await make_segments(api, "beta", "ttl")

    def ended(event: str, job: str) -> Callable[[], Awaitable[list[dict[str, Any]]]]:
        async def lines_of_it() -> list[dict[str, Any]]:
            found = lines((tmp_path / "worker-1.log").read_bytes())
            return [line for line in found if (line["event"], line.get("job")) == (event, job)]

        return lines_of_it

    failed, done = (ended(event, "record_segment_leaves") for event in ("job_failed", "job_done"))
    found_by_scheduler = ended("job_done", "expire_due_memberships")
    async with run_worker(SEGMENTQL_WORKER_THREADS="1"):
        await sql.execute("ALTER TABLE exclusions RENAME TO lost")
        try:
            await _ask(api, DELETE_BETA, "r-8")
            await until(failed)
        finally:
            await sql.execute("ALTER TABLE lost RENAME TO exclusions")
        await until(done)
        await insert_membership(sql, 1, "ttl", joined_at=NOON, expires_at=NOON + HOUR)
        await until(found_by_scheduler)
    line = (await failed())[0]
    assert (line["level"], line["reason"], line["args"]) == ("warning", "ProgrammingError", [1])
    assert (await failed())[0].get("request_id") == "r-8"
    assert "request_id" not in (await found_by_scheduler())[0]
    tracebacks = [
        line
        for line in lines((tmp_path / "worker-1.log").read_bytes())
        if "exclusions" in line.get("exception", "")
    ]
    assert {line["job"] for line in tracebacks} == {"record_segment_leaves"}


@pytest.mark.slow
def test_a_traceback_on_a_terminal_shows_no_variables() -> None:
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
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stderr
    assert b"ValueError" in told
    assert b"hush" not in told


@pytest.mark.parametrize(("setting", "printed"), [("off", b""), ("on", b"API error: failed\n")])
def test_errors_are_printed_on_standard_output_where_that_is_wanted(
    setting: str, printed: bytes
) -> None:
    # A process of its own: `configure` changes the logging of the whole process.
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
    done = subprocess.run([sys.executable, "-c", program, setting], capture_output=True, check=True)
    assert done.stdout == printed
    assert [line["event"] for line in lines(done.stderr)] == ["slow", "failed"]


async def test_a_workers_log_has_neither_links_nor_secrets(
    api: Api, settings: Settings, storage: Storage, run_worker: RunWorker, tmp_path: Path
) -> None:
    async with run_worker(SEGMENTQL_LOG_LEVEL="debug"):
        await create_user(api, id="7")
        payload = (await _ask(api, REPORT, "r-9"))["createReport"]
    assert payload["report"]["status"] == "READY"
    text = (tmp_path / "worker-1.log").read_bytes()
    made = [line for line in lines(text) if line.get("job") == "make_report"]
    assert {line.get("request_id") for line in made} == {"r-9"}
    assert b"X-Amz-Signature" not in text
    for secret in (settings.s3_secret_key, settings.database_url, settings.redis_url):
        assert secret is not None
        assert secret.encode() not in text


async def _ask(api: Api, query: str, request_id: str) -> Any:
    answer = await api.http.post(
        "/graphql", json={"query": query}, headers={"x-request-id": request_id}
    )
    body = answer.json()
    assert "errors" not in body, body
    return body["data"]
