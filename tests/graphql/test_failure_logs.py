"""Every request that is rejected or fails leaves one log line with its cause."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import httpx
import orjson
import pytest

from segmentql.errors import Unavailable
from segmentql.graphql.types.error_causes import describe_error
from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.conftest import Api, Sql, needs_reads_of_the_primary, serving
from tests.graphql.test_deadlines import locked

pytestmark = pytest.mark.usefixtures("long_connection_timeout")

USER = "query Which { user(id: 7) { id } }"
MUTATION_COST = "mutation { createUser(input: {}) { user { id } } }"
ADD = """
mutation { updateUserSegments(input: {userId: 1, add: ["secret"]}) { errors { code } } }
"""
KEY = "sgql_aaaaaaaaaaaa_" + "0" * 64


class LoggedService:
    """A service and the log lines that it wrote."""

    def __init__(self, api: Api, written: pytest.CaptureFixture[bytes]) -> None:
        self.api = api
        self._written = written

    def lines(self) -> list[dict[str, Any]]:
        """Return the log lines since the last call."""
        return [orjson.loads(line) for line in self._written.readouterr().err.splitlines()]

    def line(self) -> dict[str, Any]:
        """Return the only line."""
        (line,) = self.lines()
        return line

    async def post(self, query: str, **headers: str) -> httpx.Response:
        return await self.api.http.post("/graphql", json={"query": query}, headers=headers)


Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[LoggedService]]


@pytest.fixture
def serve(settings: Settings, sql: Sql, capsysbinary: pytest.CaptureFixture[bytes]) -> Serve:
    """Return a function that runs the application with changed settings and collects its log."""

    @asynccontextmanager
    async def running(base: Settings = settings, **changes: Any) -> AsyncIterator[LoggedService]:
        update = {"log_format": "json", **changes}
        async with serving(base.model_copy(update=update)) as api:
            yield LoggedService(api, capsysbinary)

    return running


async def test_unavailable_database_is_named_in_the_line_of_each_request(
    serve: Serve, servers: LocalServers
) -> None:
    async with serve(servers.settings("nowhere")) as logged:
        for _ in range(44):
            await logged.post(USER)
        lines = logged.lines()
    assert len(lines) == 44
    for line in lines:
        assert (line["event"], line["level"]) == ("request", "warning")
        assert (line["code"], line["outcome"]) == ("UNAVAILABLE", "failed")
        assert line["reason"] == 'InvalidCatalogNameError: database "nowhere" does not exist'


async def test_database_that_cannot_check_a_key_is_named_in_the_line(
    serve: Serve, servers: LocalServers
) -> None:
    async with serve(servers.settings("nowhere"), auth="required") as logged:
        response = await logged.post(USER, authorization=f"Bearer {KEY}")
        lines = [line for line in logged.lines() if line["event"] == "request_refused"]
    assert response.status_code == 503
    (line,) = lines
    assert (line["level"], line["status"], line["code"]) == ("warning", 503, "UNAVAILABLE")
    assert line["reason"] == 'InvalidCatalogNameError: database "nowhere" does not exist'


@needs_reads_of_the_primary
async def test_refused_connection_is_named_without_the_password(
    serve: Serve, settings: Settings
) -> None:
    url = "postgresql+asyncpg://service:hush-hush@127.0.0.1:1/segmentql"
    async with serve(database_url=url) as logged:
        await logged.post(USER)
        line = logged.line()
    assert line["code"] == "UNAVAILABLE"
    assert "Connect" in line["reason"]
    assert "hush" not in str(line)


async def test_failures_are_logged_even_if_requests_are_not(
    serve: Serve, servers: LocalServers
) -> None:
    async with serve(servers.settings("nowhere"), log_requests="off") as logged:
        await logged.post("{ __typename }")
        assert logged.lines() == []
        await logged.post(USER)
        assert logged.line()["code"] == "UNAVAILABLE"
        await logged.post("{ nothing }")
        assert logged.line()["code"] == "BAD_REQUEST"


async def test_log_level_warning_logs_only_faults_of_the_service(
    serve: Serve, servers: LocalServers
) -> None:
    async with serve(servers.settings("nowhere"), log_level="warning") as logged:
        await logged.post("{ nothing }")
        await logged.post("{ __typename }")
        assert logged.lines() == []
        await logged.post(USER)
        assert logged.line()["code"] == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [
        ("{ user(", "BAD_REQUEST", "syntax error at 1:8"),
        ("{ secretField }", "BAD_REQUEST", "the document or its variables are not valid"),
        ('{ user(id: "secret") { id } }', "BAD_REQUEST", "the argument id is not valid"),
        (
            "{ users(first: 101) { nodes { id } } }",
            "LIMIT_EXCEEDED",
            "first: 101 exceeds the limit of 100",
        ),
        (ADD, "SEGMENT_NOT_FOUND", "SegmentNotFound: add.0"),
    ],
)
async def test_cause_of_a_rejection_is_logged_without_values(
    serve: Serve, query: str, code: str, reason: str
) -> None:
    async with serve() as logged:
        await logged.post(query)
        line = logged.line()
    assert (line["event"], line["level"]) == ("request", "info")
    assert (line["code"], line["reason"]) == (code, reason)
    assert "secret" not in str(line)


@needs_reads_of_the_primary
async def test_request_beyond_the_deadline_is_logged_as_timed_out(serve: Serve, sql: Sql) -> None:
    async with serve(request_timeout_seconds=0.5) as logged, sql.transaction():
        await locked(sql, "users")
        await logged.post(USER)
        line = logged.line()
    assert (line["level"], line["code"]) == ("warning", "TIMEOUT")
    assert "SEGMENTQL_REQUEST_TIMEOUT_SECONDS" in line["reason"]


PREFLIGHT = {"origin": "https://evil.example", "access-control-request-method": "POST"}


@pytest.mark.parametrize(
    ("method", "path", "options", "reason"),
    [
        ("POST", "/graphql", {"content": b"{"}, "The content type of the body must be"),
        ("POST", "/graphql", {"json": 5}, "The body must be a JSON object"),
        ("POST", "/graphql", {"json": {"query": "x" * 2000}}, "The body is larger than"),
        ("PUT", "/graphql", {}, "Use POST or GET for GraphQL requests."),
        ("GET", "/graphql", {"params": {"query": MUTATION_COST}}, "Use POST for mutations."),
        ("POST", "/graphql", {"headers": {"accept": "text/plain"}}, "The Accept header must allow"),
        ("GET", "/healthz", {"headers": [("authorization", "a")] * 2}, "more than one"),
        ("GET", "/nowhere", {}, "Not Found"),
        ("POST", "/healthz", {}, "Method Not Allowed"),
        ("OPTIONS", "/graphql", {"headers": PREFLIGHT}, "Disallowed CORS origin"),
    ],
)
async def test_rejected_http_request_is_one_line_with_its_cause(
    serve: Serve, method: str, path: str, options: dict[str, Any], reason: str
) -> None:
    async with serve(cors_origins=("https://app.example.com",), max_body_bytes=1024) as logged:
        response = await logged.api.http.request(method, path, **options)
        line = logged.line()
    assert line["event"] == "request_refused"
    assert (line["level"], line["status"]) == ("info", response.status_code)
    assert reason in line["reason"]


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [("", "malformed"), ("Bearer x", "malformed"), (f"Bearer {KEY}", "unknown")],
)
async def test_authentication_failure_is_logged(
    serve: Serve, authorization: str, reason: str
) -> None:
    async with serve(auth="required") as logged:
        await logged.post(USER, authorization=authorization)
        line = logged.line()
    assert (line["status"], line["reason"]) == (401, f"the API key is {reason}")
    assert KEY not in str(line)


async def test_flood_of_rejected_requests_is_summarized_in_the_log(serve: Serve) -> None:
    async with serve() as logged:
        for _ in range(500):
            await logged.api.http.post("/graphql", content=b"{")
        lines = logged.lines()
    assert 200 <= len(lines) < 500


@pytest.mark.parametrize(
    "text",
    [
        "cannot connect to postgresql://service:hush@db:5432/x",
        "cannot connect to postgresql://service:hu@sh/hush@db:5432/x",
        "password=hush host=db",
        "Password: hush",
    ],
)
def test_fault_is_described_without_credentials(text: str) -> None:
    fault = Unavailable()
    fault.__cause__ = OSError(text)
    description = describe_error(fault)
    assert description.startswith("OSError: ")
    assert "hush" not in description


def test_description_of_a_fault_is_one_short_line() -> None:
    fault = Unavailable()
    fault.__cause__ = OSError("a\nb" * 1000)
    description = describe_error(fault)
    assert "\n" not in description
    assert len(description) < 250
    assert describe_error(Unavailable()) == "Unavailable"
