"""The server closes silent and slow connections, but not busy ones."""

import asyncio
import time

import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from tests.adapters.connection_helpers import Gate, closed, read_until_closed
from tests.adapters.http_server import echo, serving

SHORT = 0.6
"""The limit in seconds in these tests; the connection table is checked every half second."""


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nX: "])
@pytest.mark.slow
async def test_connection_without_a_complete_head_is_closed(sent: bytes) -> None:
    before = closed("head_timeout")
    with capture_logs() as logged:
        async with serving(echo, head_seconds=SHORT) as served:
            client = await served.connect()
            client.send(sent)
            answer = await read_until_closed(client)
    assert answer.startswith(b"HTTP/1.1 408 " if b"GET" in sent else b"")
    assert bool(answer) is (b"GET" in sent)
    assert closed("head_timeout") == before + 1
    (line,) = [line for line in logged if line["event"] == "connection_closed"]
    assert (line["reason"], line["client"]) == ("head_timeout", "127.0.0.1")


async def test_head_that_arrives_byte_by_byte_is_closed_in_time() -> None:
    async with serving(echo, head_seconds=SHORT) as served:
        client = await served.connect()
        began = time.monotonic()

        async def drip() -> None:
            for byte in b"GET / HTTP/1.1\r\nX: " + b"x" * 1000:
                client.send(bytes([byte]))
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        answer = await read_until_closed(client)
        dripping.cancel()
    assert time.monotonic() - began < SHORT + 1
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.slow
async def test_blank_lines_between_requests_do_not_extend_keep_alive() -> None:
    async with serving(echo, keep_alive_seconds=SHORT) as served:
        client = await served.connect()
        assert (await client.request()).status == 200

        async def drip() -> None:
            while True:
                client.send(b"\r\n")
                await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip())
        assert await read_until_closed(client) == b""
        dripping.cancel()


@pytest.mark.slow
async def test_second_head_has_its_own_deadline_without_idle_time() -> None:
    async with serving(echo, head_seconds=SHORT, keep_alive_seconds=30) as served:
        client = await served.connect()
        assert (await client.request()).status == 200
        await asyncio.sleep(2 * SHORT + 0.5)
        assert (await client.request()).status == 200
        client.send(b"GET / HT")
        assert (await read_until_closed(client)).startswith(b"HTTP/1.1 408 ")


@pytest.mark.slow
async def test_idle_connection_is_closed_after_the_keep_alive_time() -> None:
    before = closed("head_timeout")
    async with serving(echo, keep_alive_seconds=1.5, head_seconds=0.1) as served:
        client = await served.connect()
        assert (await client.request()).status == 200
        began = time.monotonic()
        assert await read_until_closed(client) == b""
        assert 1.4 < time.monotonic() - began < 2.6
    assert closed("head_timeout") == before


@pytest.mark.slow
async def test_unread_body_has_a_deadline() -> None:
    before = closed("body_timeout")
    async with serving(echo, head_seconds=SHORT) as served:
        client = await served.connect()
        client.send(b"POST /blind HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        assert (await client.answer()).status == 200

        async def drip() -> None:
            for _ in range(500):
                client.send(b"x")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        assert await read_until_closed(client) == b""
        dripping.cancel()
    assert closed("body_timeout") == before + 1


@pytest.mark.slow
async def test_connection_continues_after_an_unread_body() -> None:
    async with serving(echo, head_seconds=SHORT, keep_alive_seconds=1.5) as served:
        client = await served.connect()
        client.send(b"POST /blind HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        assert (await client.answer()).status == 200
        client.send(b"cd")
        await asyncio.sleep(SHORT + 0.6)
        assert (await client.request()).status == 200
        began = time.monotonic()
        assert await read_until_closed(client) == b""
        assert time.monotonic() - began > 1.4


@pytest.mark.slow
async def test_long_request_is_not_closed() -> None:
    gate = Gate()
    async with serving(gate, head_seconds=0.1, keep_alive_seconds=0.1) as served:
        client = await served.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nX:")
        await asyncio.sleep(1.2)
        gate.open.set()
        assert (await client.answer()).status == 200


@pytest.mark.slow
async def test_streamed_response_is_not_closed() -> None:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(8):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
            await asyncio.sleep(0.2)
        await send({"type": "http.response.body", "body": b"."})

    async with serving(stream, head_seconds=0.2, keep_alive_seconds=0.2) as served:
        client = await served.connect()
        answer = await client.request()
    assert answer.body == b"01234567."


class Upgraded(asyncio.Protocol):
    """A stand-in for the protocol of a WebSocket library that echoes its input."""

    def __init__(self, **_: object) -> None:
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert self.transport
        self.transport.write(data)


@pytest.mark.slow
async def test_upgraded_connection_has_no_limits() -> None:
    head = b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    async with serving(echo, ws=Upgraded, head_seconds=0.2, keep_alive_seconds=0.2) as served:
        client = await served.connect()
        client.send(head)
        assert await client.reader.readexactly(len(head)) == head
        await asyncio.sleep(1.2)
        client.send(b"still here")
        assert await client.reader.readexactly(10) == b"still here"
        client.writer.close()
