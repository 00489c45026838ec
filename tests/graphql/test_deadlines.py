"""Requests have a deadline and a maximum number in flight."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from starlette.types import Message

from segmentql.settings import Settings
from tests.conftest import Api, Sql, serving, until
from tests.operations import make_segments
from tests.reports.queries import create_report
from tests.timeline import make_users

SECONDS = 1.5
USERS = "{ users(first: 1) { nodes { id } } }"


@pytest.fixture
async def short_deadline_api(settings: Settings, sql: Sql) -> AsyncIterator[Api]:
    """Run the application with a request timeout of a second and a half."""
    changes = {"request_timeout_seconds": SECONDS, "max_requests_in_flight": 3}
    async with serving(settings.model_copy(update=changes)) as api:
        yield api


async def locked(sql: Sql, table: str) -> None:
    await sql.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")


async def no_statement_waits(sql: Sql) -> bool:
    return not await sql.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    )


@pytest.mark.slow
async def test_query_beyond_the_deadline_is_cancelled(short_deadline_api: Api, sql: Sql) -> None:
    await make_users(sql, 1)
    async with sql.transaction():
        await locked(sql, "users")
        body = await short_deadline_api.body(USERS)
        # The statement is cancelled with the request, because no other request waits for it.
        await until(lambda: no_statement_waits(sql))
    assert body == {
        "data": None,
        "errors": [
            {
                "message": f"The operation took longer than {SECONDS} s and was cancelled.",
                "extensions": {"code": "TIMEOUT", "limit": SECONDS},
            }
        ],
    }
    assert await short_deadline_api(USERS) == {"users": {"nodes": [{"id": "1"}]}}


@pytest.mark.slow
async def test_mutation_beyond_the_deadline_is_rolled_back(
    short_deadline_api: Api, sql: Sql
) -> None:
    await make_segments(short_deadline_api, "A")
    async with sql.transaction():
        await locked(sql, "segments")
        error = await short_deadline_api.error(
            'mutation { deleteSegment(input: {slug: "A"}) { deletedId errors { code } } }'
        )
        await until(lambda: no_statement_waits(sql))
    assert error["extensions"] == {"code": "TIMEOUT", "limit": SECONDS, "outcomeUnknown": True}
    assert await short_deadline_api('{ segment(slug: "A") { slug } }') == {"segment": {"slug": "A"}}


@pytest.mark.slow
async def test_shared_statement_survives_the_deadline_of_one_request(
    short_deadline_api: Api, sql: Sql
) -> None:
    """The first request is late; later requests share its statement and are in time."""
    await make_users(sql, 1)
    one_user = "{ user(id: 1) { id } }"
    async with sql.transaction():
        await locked(sql, "users")
        first = asyncio.create_task(short_deadline_api.body(one_user))
        await asyncio.sleep(SECONDS / 2)
        second = asyncio.create_task(short_deadline_api.body(one_user))
        assert (await first)["errors"][0]["extensions"]["code"] == "TIMEOUT"
    assert await second == {"data": {"user": {"id": "1"}}}


@pytest.mark.slow
async def test_waiting_for_a_report_does_not_count_toward_the_deadline(
    short_deadline_api: Api, sql: Sql
) -> None:
    await make_users(sql, 1)
    began = time.monotonic()
    stored_report = await create_report(
        short_deadline_api, userId="1", year=2024, month=1, waitSeconds=4
    )
    assert (stored_report["report"]["status"], stored_report["errors"]) == ("QUEUED", [])
    assert time.monotonic() - began > 3.9


async def slow_body(
    api: Api, *, end: asyncio.Event, path: str = "/graphql"
) -> tuple[int, Any, dict[bytes, bytes]]:
    """Send a body's first half, and its rest at `end` unless it is None; return the response."""
    app = api.http._transport.app  # type: ignore[attr-defined]
    is_answered: list[Message] = []
    parts = [b'{"query": "{ __typename', b' }"}']

    async def receive() -> Message:
        if len(parts) == 1:
            await end.wait()
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Message) -> None:
        is_answered.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
    }
    await app(scope, receive, send)
    head, body = is_answered
    return head["status"], orjson.loads(body["body"]), dict(head["headers"])


@pytest.mark.slow
async def test_incomplete_body_times_out(short_deadline_api: Api) -> None:
    status, body, headers = await slow_body(short_deadline_api, end=asyncio.Event())
    assert (status, headers[b"connection"]) == (408, b"close")
    assert body["errors"][0]["extensions"] == {"code": "TIMEOUT", "limit": SECONDS}


async def test_request_above_the_concurrency_limit_is_rejected_at_once(
    short_deadline_api: Api,
) -> None:
    end = asyncio.Event()
    slow = [asyncio.create_task(slow_body(short_deadline_api, end=end)) for _ in range(3)]
    await asyncio.sleep(0)
    rejected = await short_deadline_api.http.post("/graphql", json={"query": "{ __typename }"})
    assert (rejected.status_code, rejected.headers["retry-after"]) == (503, "1")
    assert rejected.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE", "limit": 3}
    end.set()
    assert [status for status, _, _ in await asyncio.gather(*slow)] == [200, 200, 200]
    assert await short_deadline_api("{ __typename }") == {"__typename": "Query"}


@pytest.mark.slow
async def test_waiting_expensive_mutation_does_not_block_a_query(
    short_deadline_api: Api, sql: Sql
) -> None:
    await make_users(sql, 1)
    members = "segments { members(first: 100) { nodes { user { id } segment { slug } } } }"
    waiting = asyncio.create_task(
        short_deadline_api.body(
            "mutation { createReport(input: {userId: 1, year: 2024, month: 1, waitSeconds: 5})"
            f" {{ report {{ a: user {{ {members} }} b: user {{ {members} }} }} }} }}"
        )
    )

    async def is_waiting() -> bool:
        return bool(await sql.fetchval("SELECT count(*) FROM reports"))

    await until(is_waiting)
    costly = "{ users(first: 100) { nodes { segments { members(first: 10) { nodes { id } } } } } }"
    assert await short_deadline_api(costly) == {"users": {"nodes": [{"segments": []}]}}
    assert not waiting.done()
    assert "errors" not in await waiting
