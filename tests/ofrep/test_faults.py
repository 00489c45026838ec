"""Faults of the server are reported, logged and counted. None has a status of a result."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.conftest import Api, Sql, needs_reads_of_the_primary, serving, until
from tests.graphql.test_deadlines import locked, slow_body
from tests.graphql.test_faults import metrics, renamed_table
from tests.ofrep.client import BY_HAND, FLAGS, evaluate, store_memberships
from tests.pooler import NEEDS_OWN_TIMEOUT

SECONDS = 1.5
OPERATIONS = {"A": "OFREP flag", None: "OFREP flags"}


@pytest.fixture
async def short_deadline_api(settings: Settings, sql: Sql) -> AsyncIterator[Api]:
    """Run the application with a request timeout of a second and a half."""
    changes = {"request_timeout_seconds": SECONDS, "log_format": "json"}
    async with serving(settings.model_copy(update=changes)) as api:
        yield api


def lines(written: pytest.CaptureFixture[bytes]) -> list[dict[str, Any]]:
    """Return the log lines since the last call."""
    return [orjson.loads(line) for line in written.readouterr().err.splitlines()]


def assert_fault(
    response: httpx.Response, slug: str | None, details: str, status_of_all_flags: int = 503
) -> None:
    """Check the response to a fault.

    A provider of a server reads the message only if the status is 500. A provider of a page that
    starts uses its stored values only if there is no `errorCode`.
    """
    body: dict[str, Any] = {"errorDetails": details}
    if slug is not None:
        body |= {"key": slug, "errorCode": "GENERAL"}
    assert (response.status_code, response.json()) == (
        status_of_all_flags if slug is None else 500,
        body,
    )


@pytest.mark.parametrize("slug", OPERATIONS)
async def test_unavailable_database_is_a_fault_with_a_message(
    servers: LocalServers, sql: Sql, capsysbinary: pytest.CaptureFixture[bytes], slug: str | None
) -> None:
    nowhere = servers.settings("nowhere").model_copy(update={"log_format": "json"})
    async with serving(nowhere) as api:
        lines(capsysbinary)
        response = await evaluate(api, slug, "1")
        (line,) = lines(capsysbinary)
    assert_fault(response, slug, "The database is unavailable.")
    assert (line["event"], line["level"], line["operation"], line["outcome"], line["code"]) == (
        *("request", "warning"),
        *(OPERATIONS[slug], "failed", "UNAVAILABLE"),
    )
    assert line["reason"] == 'InvalidCatalogNameError: database "nowhere" does not exist'


@pytest.mark.parametrize("slug", OPERATIONS)
async def test_key_that_cannot_be_checked_is_a_fault_with_a_message(
    servers: LocalServers, sql: Sql, slug: str | None
) -> None:
    nowhere = servers.settings("nowhere").model_copy(update={"auth": "required"})
    async with serving(nowhere) as api:
        token = f"sgql_{'a' * 12}_{'0' * 64}"
        response = await evaluate(api, slug, "1", **{"x-api-key": token})
    assert_fault(response, slug, "The database is unavailable; nothing was changed.")


@pytest.mark.parametrize("slug", OPERATIONS)
async def test_internal_fault_is_masked_and_names_the_request(
    api: Api, sql: Sql, slug: str | None
) -> None:
    await store_memberships(api, sql)
    async with renamed_table(sql, "memberships") as logged:
        response = await evaluate(api, slug, "1", **{"x-request-id": "mine"})
    assert_fault(response, slug, "An internal error occurred. The request id is mine.", 500)
    (line,) = [line for line in logged if line["log_level"] == "error"]
    assert line["request_id"] == "mine"
    assert "memberships" in str(line["exc_info"])


@NEEDS_OWN_TIMEOUT
@needs_reads_of_the_primary
async def test_statement_beyond_its_time_limit_is_a_fault(
    settings: Settings, api: Api, sql: Sql
) -> None:
    await store_memberships(api, sql)
    changes = {"statement_timeout_seconds": 0.2}
    async with serving(settings.model_copy(update=changes)) as impatient_api:
        async with sql.transaction():
            await locked(sql, "memberships")
            responses = await asyncio.gather(
                *(evaluate(impatient_api, slug, "1") for slug in OPERATIONS)
            )
        for slug, response in zip(OPERATIONS, responses, strict=True):
            assert_fault(response, slug, "The database query timed out.")

        async def is_evaluated_again() -> bool:
            return bool((await evaluate(impatient_api, "A", "1")).json() == BY_HAND)

        await until(is_evaluated_again)


@pytest.mark.slow
async def test_request_beyond_the_deadline_is_cancelled(
    short_deadline_api: Api, api: Api, sql: Sql, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    await store_memberships(api, sql)
    lines(capsysbinary)
    async with sql.transaction():
        await locked(sql, "memberships")
        responses = await asyncio.gather(
            *(evaluate(short_deadline_api, slug, "1") for slug in OPERATIONS)
        )
    details = f"The operation took longer than {SECONDS} s and was cancelled."
    for slug, response in zip(OPERATIONS, responses, strict=True):
        assert_fault(response, slug, details)
    logged = [(line["operation"], line["outcome"], line["code"]) for line in lines(capsysbinary)]
    assert sorted(logged) == [(name, "cancelled", "TIMEOUT") for name in OPERATIONS.values()]
    assert (await evaluate(api, "A", "1")).json() == BY_HAND


@pytest.mark.slow
async def test_incomplete_body_times_out(short_deadline_api: Api) -> None:
    status, body, headers = await slow_body(
        short_deadline_api, end=asyncio.Event(), path=f"{FLAGS}/A"
    )
    assert (status, headers[b"connection"]) == (408, b"close")
    assert (body["key"], body["errorCode"]) == ("A", "GENERAL")


async def test_each_failure_leaves_one_line_without_values_of_the_client(
    settings: Settings, sql: Sql, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    changes = {"log_format": "json", "log_requests": "off"}
    async with serving(settings.model_copy(update=changes)) as api:
        await store_memberships(api, sql)
        lines(capsysbinary)
        await evaluate(api, "A", "1")
        assert lines(capsysbinary) == []
        for slug, user, code, reason in (
            ("secret", "1", "FLAG_NOT_FOUND", "no segment has the requested slug"),
            ("A", "secret", "INVALID_CONTEXT", "the targetingKey is not valid"),
            (None, "", "TARGETING_KEY_MISSING", "the context has no targetingKey"),
        ):
            await evaluate(api, slug, user)
            (line,) = lines(capsysbinary)
            assert (line["level"], line["outcome"], line["code"], line["reason"]) == (
                *("info", "rejected"),
                *(code, reason),
            )
            assert "secret" not in str(line)
        await api.http.post(FLAGS, content=b"{", headers={"content-type": "application/json"})
        (line,) = lines(capsysbinary)
        assert (line["event"], line["status"], line["code"]) == (
            *("request_refused", 400),
            "BAD_REQUEST",
        )


async def test_requests_and_failures_are_counted(api: Api, sql: Sql) -> None:
    await store_memberships(api, sql)
    before = await metrics(api)
    for slug, user in (("A", "1"), ("A", "2"), (None, "1"), ("NOPE", "1"), (None, "")):
        await evaluate(api, slug, user)
    after = await metrics(api)

    def added(sample: str) -> float:
        return after.get(sample, 0) - before.get(sample, 0)

    requests = 'segmentql_requests_total{operation="%s",outcome="%s"}'
    assert added(requests % ("OFREP flag", "done")) == 2
    assert added(requests % ("OFREP flag", "rejected")) == 1
    assert added(requests % ("OFREP flags", "done")) == 1
    assert added(requests % ("OFREP flags", "rejected")) == 1
    assert added('segmentql_request_duration_seconds_count{operation="OFREP flag"}') == 3
    assert added('segmentql_errors_total{code="FLAG_NOT_FOUND"}') == 1
    assert added('segmentql_errors_total{code="TARGETING_KEY_MISSING"}') == 1
    assert after["segmentql_requests_in_flight"] == 0
