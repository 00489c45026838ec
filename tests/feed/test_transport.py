"""The subscription `changes` of the whole application, over SSE and WebSocket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import httpx
import orjson
import pytest
import uvicorn

from graphql import OperationDefinitionNode, parse
from segmentql.adapters.database import Database
from segmentql.adapters.http_connections import ConnectionTable
from segmentql.adapters.http_protocol import limited_protocol
from segmentql.adapters.websocket_protocol import limited_websocket_protocol
from segmentql.app import create_app
from segmentql.feed.reader import FeedReader
from segmentql.feed.records import NO_FILTER, FeedStart
from segmentql.feed.stream import ChangeStream
from segmentql.graphql.execution.compiler import compile_operation
from segmentql.settings import Settings
from tests.conftest import PATIENCE_SECONDS, Sql
from tests.feed.queries import BATCH
from tests.graphql.executor_helpers import CORE, make_context
from tests.graphql.websocket_client import opened
from tests.timeline import add_membership, make_segment, make_users

SUBSCRIPTION = f"""
subscription Changes($after: String, $start: FeedStart, $filter: FeedFilter) {{
  changes(after: $after, start: $start, filter: $filter) {{ {BATCH} }}
}}
"""
ADD = """
mutation Add($id: ID!) {
  updateUserSegments(input: {userId: $id, add: ["A"]}) { segmentsAdded errors { message } }
}
"""


class Served:
    """The application on a port."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/graphql"
        self.ws_url = f"ws://127.0.0.1:{port}/graphql"

    async def add(self, user_id: int) -> None:
        async with httpx.AsyncClient() as client:
            body = {"query": ADD, "variables": {"id": str(user_id)}}
            answer = (await client.post(self.url, json=body)).json()
        assert answer["data"]["updateUserSegments"]["segmentsAdded"] == 1

    @asynccontextmanager
    async def stream(self, **headers: str) -> AsyncIterator[AsyncIterator[dict[str, str]]]:
        """Open an event stream by GET, and yield its events as fields of SSE."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        async with (
            httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client,
            client.stream(
                "GET",
                self.url,
                params={"query": SUBSCRIPTION},
                headers={"accept": "text/event-stream", **names},
            ) as response,
        ):
            yield events_of(response)


async def events_of(response: httpx.Response) -> AsyncIterator[dict[str, str]]:
    event: dict[str, str] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(":")
        if name:
            event[name] = value.removeprefix(" ")
        elif event:
            yield event
            event = {}


@pytest.fixture
async def served(settings: Settings, sql: Sql) -> AsyncIterator[Served]:
    await make_users(sql, *range(1, 10))
    await make_segment(sql, "A")
    table = ConnectionTable(limit=100, keep_alive_seconds=75)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        http=limited_protocol(table),
        ws=limited_websocket_protocol(table),
        ws_per_message_deflate=False,
        port=0,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield Served(server.servers[0].sockets[0].getsockname()[1])
    app.state.stopping.set()
    server.should_exit = True
    await running


async def test_batch_is_written_by_a_plan_without_fallback(
    database: Database, settings: Settings, reader: FeedReader, segment_id: int, sql: Sql
) -> None:
    await add_membership(sql, 1, segment_id)
    stream = await ChangeStream.open(
        reader,
        after=None,
        start=FeedStart.EARLIEST,
        change_filter=NO_FILTER,
        max_changes=10,
        key_id=None,
        stopping=asyncio.Event(),
    )
    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(stream):
        await anext(stream)  # it is empty
        batch = await anext(stream)
    document = parse(SUBSCRIPTION)
    (operation,) = document.definitions
    assert isinstance(operation, OperationDefinitionNode)
    plan = compile_operation(CORE, document, operation)
    assert plan is not None
    data = await plan.run(make_context(database, settings), {}, batch)
    (event,) = data["changes"]["events"]
    assert event["entry"]["segment"] == {"id": f"seg_{segment_id}", "slug": "A"}


async def test_event_stream_resumes_by_its_last_event_id(served: Served) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS), served.stream() as events:
        first = await anext(events)
        assert orjson.loads(first["data"])["data"]["changes"]["events"] == []
        await served.add(1)
        batch = await anext(events)
        assert [user_of(event) for event in entries(batch)] == ["1"]
        last_id = batch["id"]
        assert last_id == orjson.loads(batch["data"])["data"]["changes"]["cursor"]
    await served.add(2)
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        served.stream(last_event_id=last_id) as events,
    ):
        empty, batch = await anext(events), await anext(events)
        assert entries(empty) == []
        assert [user_of(event) for event in entries(batch)] == ["2"]


async def test_websocket_gets_changes_as_they_are_committed(served: Served) -> None:
    async with opened(served.ws_url) as socket:
        await socket.init()
        await socket.subscribe(SUBSCRIPTION, start="EARLIEST")
        empty = await socket.receive()
        assert empty["payload"]["data"]["changes"]["events"] == []
        users = []
        for user_id in (1, 2, 3):
            await served.add(user_id)
            batch = (await socket.receive())["payload"]["data"]["changes"]
            users += [event["entry"]["userId"] for event in batch["events"]]
        assert users == ["1", "2", "3"]


async def test_invalid_cursor_is_rejected(served: Served) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS), served.stream(last_event_id="x") as events:
        failure, complete = await anext(events), await anext(events)
    (error,) = orjson.loads(failure["data"])["errors"]
    assert (error["extensions"]["code"], error["extensions"]["argument"]) == (
        "BAD_REQUEST",
        "after",
    )
    assert complete["event"] == "complete"


def entries(event: dict[str, str]) -> list[dict[str, object]]:
    result: list[dict[str, object]] = orjson.loads(event["data"])["data"]["changes"]["events"]
    return result


def user_of(event: dict[str, object]) -> object:
    entry = event["entry"]
    assert isinstance(entry, dict)
    return entry["userId"]
