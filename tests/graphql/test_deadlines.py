"""How long a request may take, and how many may be under way."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from starlette.types import Message

from segmentql.settings import Settings
from tests.conftest import Api, Sql, serving, until
from tests.operations import create_user, make_segments
from tests.reports.queries import create_report

SECONDS = 1.5
USERS = "{ users(first: 1) { nodes { id } } }"


@pytest.fixture
async def hurried(settings: Settings, sql: Sql) -> AsyncIterator[Api]:
    """The application where a request may take a second and a half."""
    changes = {"request_timeout_seconds": SECONDS, "max_requests_in_flight": 3}
    async with serving(settings.model_copy(update=changes)) as api:
        yield api


async def locked(sql: Sql, table: str) -> None:
    await sql.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")


async def nobody_waits(sql: Sql) -> bool:
    return not await sql.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    )


@pytest.mark.slow
async def test_a_query_that_takes_too_long_is_ended(hurried: Api, sql: Sql) -> None:
    await create_user(hurried, id="1")
    async with sql.transaction():
        await locked(sql, "users")
        body = await hurried.body(USERS)
        # The statement is cancelled with it, for nobody else waits for it.
        await until(lambda: nobody_waits(sql))
    assert body == {
        "data": None,
        "errors": [
            {
                "message": f"The operation took longer than {SECONDS} s and was cancelled.",
                "extensions": {"code": "TIMEOUT", "limit": SECONDS},
            }
        ],
    }
    assert await hurried(USERS) == {"users": {"nodes": [{"id": "1"}]}}


@pytest.mark.slow
async def test_a_change_that_takes_too_long_is_undone_and_said_to_be_unknown(
    hurried: Api, sql: Sql
) -> None:
    await make_segments(hurried, "A")
    async with sql.transaction():
        await locked(sql, "segments")
        error = await hurried.error(
            'mutation { deleteSegment(input: {slug: "A"}) { deletedId errors { code } } }'
        )
        await until(lambda: nobody_waits(sql))
    assert error["extensions"] == {"code": "TIMEOUT", "limit": SECONDS, "outcomeUnknown": True}
    assert await hurried('{ segment(slug: "A") { slug } }') == {"segment": {"slug": "A"}}


@pytest.mark.slow
async def test_a_statement_that_others_wait_for_goes_on(hurried: Api, sql: Sql) -> None:
    """The one who came first is late; those who came later share its statement and are not."""
    await create_user(hurried, id="1")
    one_user = "{ user(id: 1) { id } }"
    async with sql.transaction():
        await locked(sql, "users")
        first = asyncio.create_task(hurried.body(one_user))
        await asyncio.sleep(SECONDS / 2)
        second = asyncio.create_task(hurried.body(one_user))
        assert (await first)["errors"][0]["extensions"]["code"] == "TIMEOUT"
    assert await second == {"data": {"user": {"id": "1"}}}


@pytest.mark.slow
async def test_waiting_for_a_report_does_not_count(hurried: Api, sql: Sql) -> None:
    await create_user(hurried, id="1")
    began = time.monotonic()
    made = await create_report(hurried, userId="1", year=2024, month=1, waitSeconds=4)
    assert (made["report"]["status"], made["errors"]) == ("QUEUED", [])
    assert time.monotonic() - began > 3.9


async def slow_body(api: Api, *, end: asyncio.Event) -> tuple[int, Any, dict[bytes, bytes]]:
    """Send a body's first half, and the rest at `end`, if ever; the answer."""
    app = api.http._transport.app  # type: ignore[attr-defined]
    answered: list[Message] = []
    parts = [b'{"query": "{ __typename', b' }"}']

    async def receive() -> Message:
        if len(parts) == 1:
            await end.wait()
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Message) -> None:
        answered.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/graphql",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await app(scope, receive, send)
    head, body = answered
    return head["status"], orjson.loads(body["body"]), dict(head["headers"])


@pytest.mark.slow
async def test_a_body_that_does_not_come_is_not_waited_for(hurried: Api) -> None:
    status, body, headers = await slow_body(hurried, end=asyncio.Event())
    assert (status, headers[b"connection"]) == (408, b"close")
    assert body["errors"][0]["extensions"] == {"code": "TIMEOUT", "limit": SECONDS}


async def test_beyond_the_number_under_way_one_is_refused_at_once(hurried: Api) -> None:
    end = asyncio.Event()
    slow = [asyncio.create_task(slow_body(hurried, end=end)) for _ in range(3)]
    await asyncio.sleep(0)
    refused = await hurried.http.post("/graphql", json={"query": "{ __typename }"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE", "limit": 3}
    end.set()
    assert [status for status, _, _ in await asyncio.gather(*slow)] == [200, 200, 200]
    assert await hurried("{ __typename }") == {"__typename": "Query"}


@pytest.mark.slow
async def test_a_costly_change_that_waits_keeps_no_costly_query(hurried: Api, sql: Sql) -> None:
    await create_user(hurried, id="1")
    members = "segments { members(first: 100) { nodes { user { id } segment { slug } } } }"
    waiting = asyncio.create_task(
        hurried.body(
            "mutation { createReport(input: {userId: 1, year: 2024, month: 1, waitSeconds: 5})"
            f" {{ report {{ a: user {{ {members} }} b: user {{ {members} }} }} }} }}"
        )
    )

    async def is_asked_for() -> bool:
        return bool(await sql.fetchval("SELECT count(*) FROM reports"))

    await until(is_asked_for)
    costly = "{ users(first: 100) { nodes { segments { members(first: 10) { nodes { id } } } } } }"
    assert await hurried(costly) == {"users": {"nodes": [{"segments": []}]}}
    assert not waiting.done()
    assert "errors" not in await waiting
