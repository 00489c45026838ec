"""Subscriptions over WebSocket, on a real server."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from segmentql.adapters.database import Database
from segmentql.settings import Settings
from tests.conftest import PATIENCE_SECONDS, until
from tests.graphql.stream_server import StreamServer, serving_streams
from tests.graphql.websocket_client import opened

TICKS = "subscription($count: Int! = 2) { ticks(count: $count) { number } }"
OPEN = "subscription { ticks(count: 1, isOpen: true) { number } }"


@pytest.fixture
async def server(database: Database, settings: Settings) -> AsyncIterator[StreamServer]:
    async with serving_streams(database, settings) as running:
        yield running


def next_tick(number: int, operation_id: str = "1") -> object:
    payload = {"data": {"ticks": {"number": number}}}
    return {"id": operation_id, "type": "next", "payload": payload}


async def test_subscription_is_served_by_the_protocol(server: StreamServer) -> None:
    async with opened(server.ws_url) as socket:
        assert socket.connection.subprotocol == "graphql-transport-ws"
        await socket.init()
        for _ in range(2):  # the id may be used again after the end
            await socket.subscribe(TICKS, count=2)
            assert await socket.messages_until_end() == [
                next_tick(1),
                next_tick(2),
                {"id": "1", "type": "complete"},
            ]


async def test_operations_run_concurrently_and_end_one_by_one(server: StreamServer) -> None:
    async with opened(server.ws_url) as socket:
        await socket.init()
        await socket.subscribe(OPEN, id="a")
        await socket.subscribe(OPEN, id="b")
        received = [await socket.receive(), await socket.receive()]
        assert sorted(message["id"] for message in received) == ["a", "b"]
        await socket.send({"type": "complete", "id": "a"})

        async def is_closed() -> bool:
            return server.stats.closed == 1

        await until(is_closed)
        await socket.subscribe(TICKS, id="a", count=1)
        assert await socket.messages_until_end() == [
            next_tick(1, "a"),
            {"id": "a", "type": "complete"},
        ]
        assert server.stats.opened - server.stats.closed == 1  # b


async def test_ping_is_answered_before_and_after_init(server: StreamServer) -> None:
    async with opened(server.ws_url) as socket:
        await socket.send({"type": "ping", "payload": {"a": 1}})
        assert await socket.receive() == {"type": "pong"}
        await socket.init()
        await socket.send({"type": "pong"})
        await socket.send({"type": "ping"})
        assert await socket.receive() == {"type": "pong"}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("subscription { ticks { nope } }", "BAD_REQUEST"),
        ("subscription { ticks(", "BAD_REQUEST"),
        ("{ one }", "BAD_REQUEST"),
        ("mutation { change }", "BAD_REQUEST"),
        ('subscription { ticks(after: "x") { number } }', "BAD_REQUEST"),
        (f"subscription {{ {'ticks { number } ' * 2000} }}", "LIMIT_EXCEEDED"),
    ],
)
async def test_rejected_operation_gets_an_error_and_one_log_line(
    server: StreamServer, query: str, code: str
) -> None:
    async with opened(server.ws_url) as socket:
        await socket.init()
        await socket.subscribe(query)
        (error,) = await socket.messages_until_end()
        assert (error["id"], error["type"]) == ("1", "error")
        assert error["payload"][0]["extensions"]["code"] == code
        await socket.subscribe(TICKS, count=1)  # the socket is still usable
        assert len(await socket.messages_until_end()) == 2
    assert [line.get("code") for line in server.lines if line.get("code")] == [code]


async def test_result_with_an_error_ends_the_operation_and_is_masked(server: StreamServer) -> None:
    async with opened(server.ws_url) as socket:
        await socket.init()
        await socket.subscribe("subscription { ticks(count: 9) { number failing } }")
        first, error = await socket.messages_until_end()
        assert first["payload"] == {"data": {"ticks": {"number": 1, "failing": 1}}}
        assert error["type"] == "error"
        assert error["payload"][0]["message"] == "An internal error occurred."
        assert error["payload"][0]["extensions"]["requestId"]


async def test_subscribe_before_init_closes_with_4401(server: StreamServer) -> None:
    async with opened(server.ws_url) as socket:
        await socket.subscribe(TICKS)
        assert await socket.close_code() == (4401, "Unauthorized")
    assert server.stats.opened == 0


async def test_second_init_closes_with_4429(server: StreamServer) -> None:
    async with opened(server.ws_url) as socket:
        await socket.init()
        await socket.send({"type": "connection_init"})
        assert await socket.close_code() == (4429, "Too many initialisation requests")


async def test_id_in_use_closes_with_4409(server: StreamServer) -> None:
    async with opened(server.ws_url) as socket:
        await socket.init()
        await socket.subscribe(OPEN)
        await socket.subscribe(OPEN)
        assert await socket.close_code() == (4409, "Subscriber for 1 already exists")

    async def is_closed() -> bool:
        return server.stats.opened == server.stats.closed

    await until(is_closed)


@pytest.mark.parametrize("subprotocol", [None, "graphql-ws"])
async def test_other_subprotocol_closes_with_4406(
    server: StreamServer, subprotocol: str | None
) -> None:
    async with opened(server.ws_url, subprotocol=subprotocol) as socket:
        assert (await socket.close_code())[0] == 4406


@pytest.mark.parametrize(
    "message",
    [
        "{",
        "[]",
        '"x"',
        "{}",
        '{"type": "next"}',
        '{"type": "start", "id": "1"}',
        '{"type": "subscribe", "id": "1"}',
        '{"type": "subscribe", "id": "1", "payload": {"query": 1}}',
        '{"type": "subscribe", "id": 1, "payload": {"query": "{ one }"}}',
        '{"type": "subscribe", "id": "", "payload": {"query": "{ one }"}}',
        '{"type": "subscribe", "id": "' + "a" * 129 + '", "payload": {"query": "{ one }"}}',
        '{"type": "complete"}',
        '{"type": "connection_init", "payload": []}',
        '{"type": "connection_init", "payload": {"authorization": 1}}',
        "[" * 50_000,
    ],
)
async def test_invalid_message_closes_with_4400(server: StreamServer, message: str) -> None:
    async with opened(server.ws_url) as socket:
        await socket.init()
        await socket.send(message)
        assert (await socket.close_code())[0] == 4400
    assert [line["close_code"] for line in server.lines] == [4400]


async def test_binary_message_closes_with_4400(server: StreamServer) -> None:
    async with opened(server.ws_url) as socket:
        await socket.connection.send(b'{"type": "connection_init"}')
        assert (await socket.close_code())[0] == 4400


async def test_message_beyond_the_body_limit_closes_with_1009(server: StreamServer) -> None:
    """The limit of the test server is 100,000 bytes. A fragmented message counts as a whole."""
    async with opened(server.ws_url) as socket:
        await socket.init()
        await socket.send('{"type": "ping", "x": "' + "x" * 99_000 + '"}')
        assert await socket.receive() == {"type": "pong"}
        await socket.send('{"type": "ping", "x": "' + "x" * 100_000 + '"}')
        assert (await socket.close_code())[0] == 1009
    async with opened(server.ws_url) as socket:
        await socket.init()
        await socket.connection.send("x" * 10_000 for _ in range(11))
        assert (await socket.close_code())[0] == 1009


async def test_client_without_init_is_closed_with_4408(
    database: Database, settings: Settings
) -> None:
    async with (
        serving_streams(database, settings, init_seconds=0.1) as server,
        opened(server.ws_url) as socket,
    ):
        await socket.send({"type": "pong"})
        assert await socket.close_code() == (4408, "Connection initialisation timeout")
    assert server.lines[-1]["close_code"] == 4408


async def test_many_clients_without_init_do_not_block_others(server: StreamServer) -> None:
    """Of those that wait, the oldest is closed for the newest beyond 100."""
    async with opened(server.ws_url) as oldest, asyncio.TaskGroup() as group:
        ready = asyncio.Semaphore(0)
        done = asyncio.Event()

        async def wait_without_init() -> None:
            async with opened(server.ws_url):
                ready.release()
                await done.wait()

        for _ in range(100):
            group.create_task(wait_without_init())
        for _ in range(100):
            await asyncio.wait_for(ready.acquire(), PATIENCE_SECONDS)
        assert (await oldest.close_code())[0] is None
        async with opened(server.ws_url) as newest:
            await newest.init()
        done.set()


async def test_messages_are_not_compressed(server: StreamServer) -> None:
    async with opened(server.ws_url, compression="deflate") as socket:
        assert socket.connection.response
        assert "sec-websocket-extensions" not in socket.connection.response.headers


async def test_stop_closes_with_1012_and_without_complete(server: StreamServer) -> None:
    async with opened(server.ws_url) as socket:
        await socket.init()
        await socket.subscribe(OPEN)
        assert await socket.receive() == next_tick(1)
        server.stopping.set()
        with pytest.raises(Exception, match="1012"):
            await socket.receive()
    with pytest.raises(InvalidStatus) as rejected:
        async with opened(server.ws_url):
            pass
    assert rejected.value.response.status_code == 503


async def test_client_that_disconnects_closes_its_sources(server: StreamServer) -> None:
    async with opened(server.ws_url) as socket:
        await socket.init()
        for operation_id in ("a", "b"):
            await socket.subscribe(OPEN, id=operation_id)
            await socket.receive()
        socket.connection.transport.abort()

    async def is_closed() -> bool:
        return server.stats.closed == 2

    await until(is_closed)
    assert [line["outcome"] for line in server.lines] == ["disconnected", "disconnected"]


async def test_thousand_subscribes_on_a_socket_are_limited(server: StreamServer) -> None:
    async with opened(server.ws_url) as socket:
        await socket.init()
        for number in range(1000):
            await socket.subscribe(OPEN, id=str(number))
        answers = [await socket.receive() for _ in range(1000)]
        started = {answer["id"] for answer in answers if answer["type"] == "next"}
        errors = [answer for answer in answers if answer["type"] == "error"]
        assert started == {str(number) for number in range(50)}
        assert len(errors) == 950
        assert errors[0]["payload"][0]["extensions"] == {"code": "LIMIT_EXCEEDED", "limit": 50}
        assert server.stats.opened == 50


async def test_request_over_http_is_served_beside_sockets(server: StreamServer) -> None:
    async with opened(server.ws_url) as socket, httpx.AsyncClient() as client:
        await socket.init()
        answer = await client.post(server.http_url, json={"query": "{ one }"})
        assert answer.json()["data"] == {"one": 1}
