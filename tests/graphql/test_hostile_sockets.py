"""WebSocket clients that do not read, send too much, or abuse the handshake: raw connections."""

import asyncio
import base64
import contextlib
import os
import struct
from collections.abc import AsyncIterator

import orjson
import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.http_protocol import MAX_HEAD_BYTES
from segmentql.settings import Settings
from tests.adapters.http_server import Client
from tests.conftest import PATIENCE_SECONDS, until
from tests.graphql.stream_server import StreamServer, serving_streams
from tests.graphql.websocket_client import opened

LARGE = "subscription { ticks(count: 12, size: 4000000, isOpen: true) { text } }"

STREAM = (
    b"GET /graphql?query=subscription%7Bticks(isOpen:true)%7Bnumber%7D%7D HTTP/1.1\r\n"
    b"Host: localhost\r\nAccept: text/event-stream\r\n\r\n"
)


@pytest.fixture
async def server(database: Database, settings: Settings) -> AsyncIterator[StreamServer]:
    async with serving_streams(database, settings, send_seconds=0.5) as running:
        yield running


def handshake(*lines: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    head = (
        "GET /graphql HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Protocol: graphql-transport-ws",
        *lines,
    )
    return "\r\n".join((*head, "", "")).encode()


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a masked frame, whose mask is zero."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + struct.pack("!H", size)
    return bytes([0x80 | opcode]) + length + bytes(4) + payload


async def connect(server: StreamServer) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", server.port, limit=65_536))


async def connect_and_init(server: StreamServer) -> Client:
    client = await connect(server)
    client.send(handshake())
    await client.reader.readuntil(b"\r\n\r\n")
    client.send(frame(1, b'{"type": "connection_init"}'))
    await client.reader.readuntil(b"connection_ack")
    return client


async def close(client: Client) -> None:
    client.writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await client.writer.wait_closed()


async def connections(server: StreamServer) -> int:
    return len(server.server.server_state.connections)


async def test_client_that_does_not_read_is_disconnected(server: StreamServer) -> None:
    """The source is not read ahead: at most one event is in memory."""
    client = await connect_and_init(server)
    subscribe = {"type": "subscribe", "id": "1", "payload": {"query": LARGE}}
    client.send(frame(1, orjson.dumps(subscribe)))

    async def is_closed() -> bool:
        return server.stats.closed == 1 and await connections(server) == 0

    await until(is_closed)
    assert server.stats.produced <= 3  # the kernel's buffers take a few megabytes
    assert [line["code"] for line in server.lines] == ["UNREAD"]
    await close(client)


async def test_several_operations_of_such_a_client_wait_for_each_other(
    server: StreamServer,
) -> None:
    client = await connect_and_init(server)
    for number in range(10):
        subscribe = {"type": "subscribe", "id": str(number), "payload": {"query": LARGE}}
        client.send(frame(1, orjson.dumps(subscribe)))

    async def is_closed() -> bool:
        return server.stats.closed == 10 and await connections(server) == 0

    await until(is_closed)
    assert server.stats.produced <= 12  # one event of each, and two that the kernel took
    await close(client)


async def test_pongs_of_a_client_that_does_not_read_are_bounded(server: StreamServer) -> None:
    """The server stops to read, so that the client's own send buffer fills."""
    client = await connect_and_init(server)
    pings = frame(9, bytes(125)) * 1000
    sent = 0
    try:
        async with asyncio.timeout(0.5):
            while True:
                client.send(pings)
                sent += len(pings)
                await client.writer.drain()
    except (TimeoutError, ConnectionError):
        pass
    (connection,) = server.server.server_state.connections
    buffered = connection.transport.get_write_buffer_size()
    assert buffered < 1_000_000
    assert sent > buffered
    await close(client)


async def test_closed_client_that_does_not_read_is_reset(server: StreamServer) -> None:
    """uvicorn would wait for its unread data without a limit."""
    client = await connect_and_init(server)
    subscribe = {"type": "subscribe", "id": "1", "payload": {"query": LARGE}}
    client.send(frame(1, orjson.dumps(subscribe)))

    async def is_sending() -> bool:
        return server.stats.produced > 0

    await until(is_sending)
    client.send(frame(1, b"not a message"))

    async def is_gone() -> bool:
        return await connections(server) == 0

    await until(is_gone)
    await close(client)


async def test_limit_of_the_head_holds_for_the_handshake(server: StreamServer) -> None:
    client = await connect(server)
    client.send(handshake(f"X: {'x' * MAX_HEAD_BYTES}"))
    answer = await client.answer()
    assert answer.status == 431
    await close(client)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("X: " + "x" * 10_000, 431),
        ("\r\n".join(f"X{number}: x" for number in range(200)), 431),
        ("Sec-WebSocket-Version: 12", 400),
        ("Host: localhost", 400),
        ("Authorization: a\r\nAuthorization: b", 400),
        ("Origin: http://localhost\r\nOrigin: https://evil.example", 400),
    ],
)
async def test_rejected_handshake_is_answered_and_closed(
    server: StreamServer, line: str, status: int
) -> None:
    client = await connect(server)
    client.send(handshake(line))
    async with asyncio.timeout(PATIENCE_SECONDS):
        text = (await client.rest()).decode()
    assert text.startswith(f"HTTP/1.1 {status} "), text
    await close(client)

    async def is_gone() -> bool:
        return await connections(server) == 0

    await until(is_gone)


async def test_handshake_behind_a_running_request_is_not_an_upgrade(server: StreamServer) -> None:
    """The two responses would otherwise be mixed."""
    client = await connect(server)
    client.send(STREAM + handshake())
    await client.reader.readuntil(b'"number":3')
    server.stopping.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        rest = await client.reader.readuntil(b"0\r\n\r\n")
    assert b"101 Switching" not in rest
    await close(client)


async def test_streams_count_as_connections_and_are_not_evicted(
    database: Database, settings: Settings
) -> None:
    """An idle connection is closed for a new one; a WebSocket and an event stream are not."""
    async with (
        serving_streams(database, settings, max_connections=3) as server,
        opened(server.ws_url) as socket,
    ):
        await socket.init()
        stream = await connect(server)
        stream.send(STREAM)
        await stream.reader.readuntil(b'"number":3')
        idle = await connect(server)
        idle.send(b"GET /graphql?query=%7Bone%7D HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await idle.answer()).status == 200
        newest = await connect(server)
        newest.send(b"GET /graphql?query=%7Bone%7D HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await newest.answer()).status == 200
        assert await idle.rest() == b""
        await socket.send({"type": "ping"})
        assert await socket.receive() == {"type": "pong"}
        assert server.stats.closed == 0
        for client in (stream, idle, newest):
            await close(client)
