"""Subscriptions over Server-Sent Events, on a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest

from segmentql.adapters.database import Database
from segmentql.settings import Settings
from tests.conftest import PATIENCE_SECONDS, until
from tests.graphql.stream_server import StreamServer, serving_streams

TICKS = "subscription($count: Int! = 3) { ticks(count: $count) { number } }"
OPEN = "subscription { ticks(isOpen: true) { number cursor } }"
STREAM = {"accept": "text/event-stream"}


@pytest.fixture
async def server(database: Database, settings: Settings) -> AsyncIterator[StreamServer]:
    async with serving_streams(database, settings) as running:
        yield running


@asynccontextmanager
async def opened(
    server: StreamServer, query: str, *, method: str = "POST", **headers: str
) -> AsyncIterator[httpx.Response]:
    """Open a stream."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request: dict[str, Any] = (
        {"json": {"query": query}} if method == "POST" else {"params": {"query": query}}
    )
    async with (
        httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client,
        client.stream(method, server.http_url, headers={**STREAM, **names}, **request) as response,
    ):
        yield response


def parsed(text: str) -> list[dict[str, str]]:
    """Return the messages of a stream, without comments."""
    messages = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            parts = [line.partition(":") for line in lines]
            messages.append({name: value.removeprefix(" ") for name, _, value in parts})
    return messages


async def results(
    server: StreamServer, query: str, *, method: str = "POST", **headers: str
) -> list[dict[str, str]]:
    """Return the messages of a stream that ends."""
    async with opened(server, query, method=method, **headers) as response:
        assert response.status_code == 200, await response.aread()
        return parsed((await response.aread()).decode())


def tick(number: int) -> dict[str, str]:
    data = orjson.dumps({"data": {"ticks": {"number": number}}}).decode()
    return {"event": "next", "id": str(number), "data": data}


COMPLETE = {"event": "complete", "data": ""}


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_each_result_is_sent_with_its_cursor(server: StreamServer, method: str) -> None:
    assert await results(server, TICKS, method=method) == [tick(1), tick(2), tick(3), COMPLETE]


async def test_last_event_id_replaces_the_argument_after(server: StreamServer) -> None:
    query = 'subscription { ticks(after: "1", count: 1) { number } }'
    assert await results(server, query) == [tick(2), COMPLETE]
    assert await results(server, query, last_event_id="7") == [tick(8), COMPLETE]


async def test_stream_has_the_headers_of_event_streams(server: StreamServer) -> None:
    async with opened(server, TICKS) as response:
        headers = response.headers
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-cache, no-store"
        assert headers["x-accel-buffering"] == "no"
        assert headers["x-request-id"]


async def test_comments_are_sent_while_there_is_no_result(
    database: Database, settings: Settings
) -> None:
    async with (
        serving_streams(database, settings, heartbeat_seconds=0.05) as server,
        opened(server, OPEN) as response,
    ):
        text = ""
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for part in response.aiter_text():
                text += part
                if text.endswith(":\n\n:\n\n"):
                    break
    assert [message["id"] for message in parsed(text)] == ["1", "2", "3"]


async def test_query_is_answered_by_one_message(server: StreamServer) -> None:
    answer, complete = await results(server, "{ one }")
    assert orjson.loads(answer["data"])["data"] == {"one": 1}
    assert complete == COMPLETE


async def test_mutation_is_executed_by_post_only(server: StreamServer) -> None:
    answer, _ = await results(server, "mutation { change }")
    assert orjson.loads(answer["data"])["data"] == {"change": 1}
    async with opened(server, "mutation { change }", method="GET") as response:
        assert response.status_code == 405
        assert response.headers["content-type"] == "application/json; charset=utf-8"


async def test_subscription_without_a_stream_is_rejected(server: StreamServer) -> None:
    async with httpx.AsyncClient() as client:
        for accept in ("application/json", "application/graphql-response+json, text/event-stream"):
            answer = await client.post(
                server.http_url, json={"query": TICKS}, headers={"accept": accept}
            )
            (error,) = answer.json()["errors"]
            assert "text/event-stream" in error["message"]
            assert error["extensions"]["code"] == "BAD_REQUEST"
    assert server.stats.opened == 0


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("subscription { ticks { nope } }", "BAD_REQUEST"),
        ("subscription { ticks(", "BAD_REQUEST"),
        ('subscription { ticks(after: "x") { number } }', "BAD_REQUEST"),
        ("subscription { ticks(count: 1.5) { number } }", "BAD_REQUEST"),
        (f"subscription {{ {'ticks { number } ' * 2000} }}", "LIMIT_EXCEEDED"),
    ],
)
async def test_errors_of_the_operation_are_sent_as_a_message(
    server: StreamServer, query: str, code: str
) -> None:
    """EventSource cannot read the body of a response with another status."""
    failure, complete = await results(server, query)
    (error, *_) = orjson.loads(failure["data"])["errors"]
    assert error["extensions"]["code"] == code
    assert "id" not in failure
    assert complete == COMPLETE
    rejected = [line for line in server.lines if line["event"] == "request"]
    assert [line["code"] for line in rejected] == [code]


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"{}", 400), (b'{"query": "' + b"a" * 200_000 + b'"}', 413)],
)
async def test_invalid_requests_get_an_http_error(
    server: StreamServer, body: bytes, status: int
) -> None:
    headers = {**STREAM, "content-type": "application/json"}
    async with httpx.AsyncClient() as client:
        answer = await client.post(server.http_url, content=body, headers=headers)
    assert answer.status_code == status
    assert [line["status"] for line in server.lines] == [status]


async def test_result_with_an_error_ends_the_stream_and_is_masked(server: StreamServer) -> None:
    """The client would otherwise miss the data of the result."""
    messages = await results(server, "subscription { ticks(count: 9) { number failing } }")
    first, failure = messages
    assert first["id"] == "1"
    assert "id" not in failure
    (error,) = orjson.loads(failure["data"])["errors"]
    assert error["message"] == "An internal error occurred."
    assert error["path"] == ["ticks", "failing"]
    assert server.lines[-1]["outcome"] == "failed"


async def test_fault_of_the_source_ends_the_stream_without_complete(server: StreamServer) -> None:
    """The client subscribes again, as after a lost connection."""
    *messages, failure = await results(server, "subscription { ticks(count: 99) { number } }")
    assert [message["id"] for message in messages] == [str(number) for number in range(1, 13)]
    (error,) = orjson.loads(failure["data"])["errors"]
    assert error["extensions"]["code"] == "UNAVAILABLE"


async def test_result_beyond_the_response_limit_ends_the_stream(
    database: Database, settings: Settings
) -> None:
    async with serving_streams(database, settings, response_bytes=1024) as server:
        query = "subscription { ticks(size: 2000) { number text } }"
        failure, complete = await results(server, query)
    assert complete == COMPLETE
    (error,) = orjson.loads(failure["data"])["errors"]
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED"
    assert error["extensions"]["limit"] == 1024


async def test_client_that_disconnects_closes_the_source(server: StreamServer) -> None:
    async with opened(server, OPEN) as response:
        async for _ in response.aiter_text():
            break
        assert server.stats.opened == 1

    async def is_closed() -> bool:
        return server.stats.closed == 1

    await until(is_closed)
    assert server.lines[-1]["outcome"] == "disconnected"


async def test_stop_ends_the_stream_without_complete(server: StreamServer) -> None:
    async with opened(server, OPEN) as response:
        text = ""
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for part in response.aiter_text():
                text += part
                if '"cursor":"3"' in text:
                    server.stopping.set()
    assert [message["id"] for message in parsed(text)] == ["1", "2", "3"]
    assert server.stats.closed == 1
    async with opened(server, OPEN) as response:
        assert response.status_code == 503


async def test_client_that_does_not_read_is_disconnected(
    database: Database, settings: Settings
) -> None:
    """The source is not read ahead: at most one result is in memory."""
    async with serving_streams(database, settings, send_seconds=0.5) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        query = "subscription { ticks(count: 12, size: 4000000, isOpen: true) { text } }"
        body = orjson.dumps({"query": query})
        head = (
            f"POST /graphql HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)

        async def is_closed() -> bool:
            return server.stats.closed == 1

        await until(is_closed)
        assert server.stats.produced <= 3  # the kernel's buffers take a few megabytes
        assert server.lines[-1]["code"] == "UNREAD"
        writer.close()
        del reader


async def test_streams_of_a_process_are_limited(database: Database, settings: Settings) -> None:
    async with (
        serving_streams(database, settings, max_streams=1) as server,
        opened(server, OPEN) as first,
    ):
        assert first.status_code == 200
        async with opened(server, OPEN) as second:
            assert second.status_code == 503
            (error,) = orjson.loads(await second.aread())["errors"]
            assert error["extensions"] == {"code": "UNAVAILABLE", "limit": 1}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]:80", "LOCALHOST:1"])
async def test_host_that_names_this_machine_is_accepted(server: StreamServer, host: str) -> None:
    assert len(await results(server, TICKS, host=host)) == 4


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil", "x:"])
@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_host_of_another_machine_is_rejected_without_keys(
    server: StreamServer, host: str, accept: str
) -> None:
    """A page whose name resolves to a loopback address could otherwise read everything."""
    async with opened(server, "{ one }", host=host, accept=accept) as response:
        assert response.status_code == 403
        (error,) = orjson.loads(await response.aread())["errors"]
        assert error["extensions"]["code"] == "FORBIDDEN"
