"""The SDKs of OpenFeature evaluate segments against a running service, faults included."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from openfeature import api as openfeature
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext

from segmentql.adapters.database import Database
from tests.back_dating import NOON, insert_membership
from tests.clients.node import run_json, running_node
from tests.conftest import Sql
from tests.e2e.conftest import RunServe, Serving
from tests.graphql.test_deadlines import locked
from tests.keys.clients import make_key
from tests.ofrep.client import BY_HAND, BY_ROLLOUT, body_of
from tests.timeline import make_segment

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS = 60
RATE = 20

SUCCESSES: dict[str, dict[str, Any]] = {
    "byHand": BY_HAND,
    "byRollout": BY_ROLLOUT,
    "expired": {"value": False, "reason": "STATIC", "variant": "out", "metadata": {}},
    "unstored": {"value": False, "reason": "STATIC", "variant": "out", "metadata": {}},
}
FAILURES = {
    "unknown": ("FLAG_NOT_FOUND", "No segment has this slug."),
    "withoutUser": (
        "TARGETING_KEY_MISSING",
        "The context has no `targetingKey`, which names the user.",
    ),
    "notAnId": (
        "INVALID_CONTEXT",
        "targetingKey is not valid: 'ada' is not a user id. Allowed: a decimal number from 1 to"
        " 9223372036854775807, without sign or leading zeros.",
    ),
}


class Service:
    """A running service that requires keys, and a key with the role EVALUATOR."""

    def __init__(self, serving: Serving, token: str) -> None:
        self.serving = serving
        self.url = serving.address
        self.token = token


@pytest.fixture
async def service(run_serve: RunServe, database: Database, sql: Sql) -> AsyncIterator[Service]:
    """Run the service. User 1 is in A by hand, in B by a rollout, and was in C."""
    for slug in "ABC":
        await make_segment(sql, slug)
    await insert_membership(sql, 1, "A")
    end = NOON.replace(year=2099, microsecond=123456)
    await insert_membership(sql, 1, "B", expires_at=end, cause="ROLLOUT")
    await insert_membership(sql, 1, "C", expires_at=NOON.replace(hour=13))
    key = await make_key(database, "EVALUATOR")
    settings = {
        "SEGMENTQL_AUTH": "required",
        "SEGMENTQL_RATE_PER_SECOND": str(RATE),
        "SEGMENTQL_STATEMENT_TIMEOUT_SECONDS": "0.5",
    }
    async with run_serve(**settings) as serving:
        yield Service(serving, key.token)


def assert_details(details: dict[str, dict[str, Any]]) -> None:
    """Check the details of flags, with the names of SDKs for JavaScript."""
    for name, flag in SUCCESSES.items():
        assert details[name] == {
            "value": flag["value"],
            "reason": flag["reason"],
            "variant": flag["variant"],
            "flagMetadata": flag["metadata"],
        }, name
    for name, failure in FAILURES.items():
        assert details[name]["value"] is False
        assert (details[name]["errorCode"], details[name]["errorMessage"]) == failure


async def test_javascript_server_sdk(service: Service) -> None:
    details = await run_json("openfeature-server.mjs", "evaluate", service.url, service.token)
    assert_details(details)
    assert details["withoutKey"]["errorCode"] == "GENERAL"


async def test_javascript_server_sdk_reports_a_slow_database(service: Service, sql: Sql) -> None:
    async with sql.transaction():
        await locked(sql, "memberships")
        details = await run_json("openfeature-server.mjs", "evaluate", service.url, service.token)
    for name in ("byHand", "byRollout", "unknown"):
        assert details[name]["errorCode"] == "GENERAL"
        assert details[name]["errorMessage"] == "The database query timed out."


async def test_javascript_server_sdk_is_not_paused_by_the_rate_limit(service: Service) -> None:
    errors = await run_json("openfeature-server.mjs", "burst", service.url, service.token, "200")
    rejected = [error for error in errors if error]
    assert any("rate limit exceeded" in error for error in rejected)
    assert not any("paused" in error for error in rejected)
    assert errors[-1] is None


async def test_python_sdk(service: Service, sql: Sql) -> None:
    async with python_details(service) as evaluate:
        details = {
            "byHand": await evaluate("A", "1"),
            "byRollout": await evaluate("B", "1"),
            "expired": await evaluate("C", "1"),
            "unstored": await evaluate("A", "99"),
            "unknown": await evaluate("NOPE", "1"),
            "withoutUser": await evaluate("A", None),
            "notAnId": await evaluate("A", "ada"),
        }
        assert_details(details)
        async with sql.transaction():
            await locked(sql, "memberships")
            slow = await evaluate("A", "1")
        assert (slow["value"], slow["errorCode"]) == (False, "GENERAL")
        assert "The database query timed out." in slow["errorMessage"]
        assert await evaluate("A", "1") == details["byHand"]
    async with python_details(Service(service.serving, "nonsense")) as evaluate:
        rejected = await evaluate("A", "1")
        assert (rejected["errorCode"], rejected["errorMessage"]) == ("GENERAL", "unauthorized")


@asynccontextmanager
async def python_details(service: Service) -> AsyncIterator[Callable[..., Any]]:
    """Yield a function that evaluates a flag with the SDK for Python."""
    provider = OFREPProvider(service.url, headers_factory=lambda: {"X-API-Key": service.token})
    openfeature.set_provider(provider)
    client = openfeature.get_client()

    async def evaluate(slug: str, targeting_key: str | None) -> dict[str, Any]:
        context = EvaluationContext(targeting_key, {"plan": "free"})
        details = await asyncio.to_thread(
            client.get_boolean_details, slug, default_value=False, evaluation_context=context
        )
        if details.error_code is None:
            return {
                "value": details.value,
                "reason": details.reason,
                "variant": details.variant,
                "flagMetadata": details.flag_metadata,
            }
        return {
            "value": details.value,
            "errorCode": details.error_code.value,
            "errorMessage": details.error_message,
        }

    try:
        yield evaluate
    finally:
        openfeature.clear_providers()
        provider.session.close()


class Page:
    """The output of `openfeature-web.mjs`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        self._output = process.stdout
        self.lines: list[dict[str, Any]] = []

    async def next_line(self, event: str, text: str = "") -> dict[str, Any]:
        """Return the next line of an event that has a text."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                line: dict[str, Any] = json.loads(await self._output.readline())
                self.lines.append(line)
                if line["event"] == event and text in json.dumps(line):
                    return line


async def test_page_keeps_its_last_values(service: Service, sql: Sql) -> None:
    """Neither a slow database, nor the rate limit, nor the server's end makes it drop them."""
    async with running_node("openfeature-web.mjs", service.url, service.token) as process:
        page = Page(process)
        flags = {
            "A": [True, "TARGETING_MATCH"],
            "B": [True, "SPLIT"],
            "C": [False, "STATIC"],
            "NOPE": [False, "FLAG_NOT_FOUND"],
        }
        assert (await page.next_line("ready"))["flags"] == flags
        await page.next_line("response", "304")

        async def assert_kept(cause: str) -> None:
            stale = await page.next_line("stale", cause)
            assert stale["flags"] == flags, stale
            # Below the rate limit, a request between two rejected ones may succeed.
            await page.next_line("loaded again", "CACHED")

        async with sql.transaction():
            await locked(sql, "memberships")
            await assert_kept("does not match the expected format")
            assert {"event": "response", "status": 503} in page.lines
        await make_segment(sql, "D")
        assert (await page.next_line("changed"))["flags"] == flags

        async with httpx.AsyncClient() as client:
            exhausting = asyncio.create_task(_exhaust_rate(client, service))
            try:
                await assert_kept("rate limit exceeded")
            finally:
                exhausting.cancel()
                await asyncio.wait([exhausting])
        await sql.execute("UPDATE memberships SET cause = 'MANUAL' WHERE cause = 'ROLLOUT'")
        flags["B"] = [True, "TARGETING_MATCH"]
        assert (await page.next_line("changed"))["flags"] == flags

        service.serving.process.kill()
        await assert_kept("OFREP request failed")
        loaded = [line for line in page.lines if line["event"] == "loaded again"]
        assert len(loaded) >= 3
        assert [line for line in loaded if line.get("value") is not True] == []


async def _exhaust_rate(client: httpx.AsyncClient, service: Service) -> None:
    """Send requests with the page's key until the task is cancelled."""
    while True:
        await client.post(
            f"{service.url}/ofrep/v1/evaluate/flags/A",
            json=body_of("1"),
            headers={"x-api-key": service.token},
        )
        await asyncio.sleep(0.005)
