"""The server limits the connections, heads and bodies of a client, and their durations."""

import asyncio
import time

import orjson
import pytest
from prometheus_client import REGISTRY
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from segmentql.adapters.http_connections import MAX_PIPELINED_REQUESTS
from segmentql.adapters.http_protocol import MAX_HEAD_BYTES
from tests.adapters.http_server import Client, echo, serving

CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
SHORT = 0.6
"""The limit in seconds in these tests; the connection table is checked every half second."""


def closed(reason: str) -> float:
    """Return the number of connections closed for a reason so far."""
    name = "segmentql_connections_closed_total"
    return REGISTRY.get_sample_value(name, {"reason": reason}) or 0


async def read_until_closed(client: Client, *, seconds: float = 3) -> bytes:
    """Wait until the server closes the connection, and return what it sent before."""
    async with asyncio.timeout(seconds):
        return await client.rest()


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


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: aaaaaaaaaa\r\n" * 6000 + b"\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 5_000_000,
        b"GET /" + b"a" * 5_000_000,
        b"GET / HTTP/1.1\r\n" + b"a" * 5_000_000,
    ],
    ids=["url", "value", "many", "endless value", "endless url", "endless name"],
)
async def test_large_head_is_rejected_with_431(head: bytes) -> None:
    before = closed("head_too_large")
    async with serving(echo) as served:
        client = await served.connect()
        client.send(head)
        answer = await client.answer()
        assert await read_until_closed(client) == b""
    assert answer.status == 431
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.error["extensions"] == {"code": "LIMIT_EXCEEDED", "limit": MAX_HEAD_BYTES}
    assert closed("head_too_large") == before + 1


async def test_head_just_below_the_limit_is_accepted() -> None:
    head = b"GET / HTTP/1.1\r\nX: " + b"a" * (MAX_HEAD_BYTES - 100) + b"\r\n\r\n"
    async with serving(echo) as served:
        client = await served.connect()
        client.send(head)
        assert (await client.answer()).status == 200
        for start in range(0, len(head), 10_000):
            client.send(head[start : start + 10_000])
            await asyncio.sleep(0.01)
        assert (await client.answer()).status == 200


async def test_pipelined_requests_after_a_large_body_keep_their_order() -> None:
    body = b"b" * 200_000
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + body
    async with serving(echo) as served:
        client = await served.connect()
        client.send((post + b"GET / HTTP/1.1\r\nX: 1\r\n\r\n") * 3 + b"GET / HTTP/1.1\r\nX:")
        for _ in range(3):
            first, second = await client.answer(), await client.answer()
            assert len(orjson.loads(first.body)["body"]) == len(body)
            assert ["x", "1"] in orjson.loads(second.body)["headers"]
        client.send(b" 2\r\n\r\n")
        assert ["x", "2"] in orjson.loads((await client.answer()).body)["headers"]


async def test_trailers_of_a_chunked_body_do_not_reach_the_headers() -> None:
    async with serving(echo) as served:
        client = await served.connect()
        for _ in range(2):
            client.send(
                CHUNKED + b"Authorization: Bearer mine\r\n\r\n"
                b"2\r\nab\r\n0\r\nAuthorization: Bearer other\r\nX-Trailer: 1\r\n\r\n"
            )
            headers_seen = orjson.loads((await client.answer()).body)
            assert headers_seen["body"] == "ab"
            assert headers_seen["headers"] == [
                ["host", "x"],
                ["transfer-encoding", "chunked"],
                ["authorization", "Bearer mine"],
            ]


@pytest.mark.parametrize(
    "tail",
    [b"0\r\nX: " + b"a" * 2_000_000, b"0\r\n" + b"X: aaaa\r\n" * 200_000, b"1;" + b"a" * 2_000_000],
)
async def test_endless_trailers_and_chunk_extensions_are_rejected(tail: bytes) -> None:
    async with serving(echo) as served:
        client = await served.connect()
        client.send(CHUNKED + b"\r\n2\r\nab\r\n")
        await asyncio.sleep(0.05)
        client.send(tail)
        answer = await client.answer()
        assert answer.status == 431
        assert await read_until_closed(client) == b""


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


async def test_longest_idle_connection_is_closed_for_a_new_one() -> None:
    before = closed("evicted")
    async with serving(echo, limit=3) as served:
        idle = [await served.connect() for _ in range(3)]
        for client in (idle[1], idle[0], idle[2]):
            assert (await client.request()).status == 200
        newcomer = await served.connect()
        assert (await newcomer.request()).status == 200
        assert await read_until_closed(idle[1]) == b""
        assert (await idle[0].request()).status == 200
        assert (await idle[2].request()).status == 200
    assert closed("evicted") == before + 1


@pytest.mark.slow
async def test_silent_connections_are_closed_for_new_ones_after_a_second() -> None:
    async with serving(echo, limit=3) as served:
        silent = [await served.connect() for _ in range(3)]
        await asyncio.sleep(1.1)
        newcomer = await served.connect()
        assert (await newcomer.request()).status == 200
        assert await read_until_closed(silent[0]) == b""
        assert await silent[1].is_open()


class Gate:
    """An application that responds after its gate opens."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.waiting += 1
        await self.open.wait()
        await echo(scope, receive, send)


async def test_new_connection_gets_503_while_every_other_is_busy() -> None:
    before = closed("full")
    gate = Gate()
    with capture_logs() as logged:
        async with serving(gate, limit=2) as served:
            busy = [await served.connect() for _ in range(2)]
            for client in busy:
                client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            while gate.waiting < 2:
                await asyncio.sleep(0.01)
            newcomer = await served.connect()
            newcomer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await newcomer.answer()
            assert await read_until_closed(newcomer) == b""
            gate.open.set()
            assert [(await client.answer()).status for client in busy] == [200, 200]
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.headers["connection"] == "close"
    assert answer.error["extensions"] == {"code": "UNAVAILABLE", "limit": 2}
    assert closed("full") == before + 1
    assert [line["reason"] for line in logged if line["event"] == "connection_closed"] == ["full"]


@pytest.mark.slow
async def test_flood_of_rejected_connections_is_summarized_in_the_log() -> None:
    gate = Gate()
    with capture_logs() as logged:
        async with serving(gate, limit=1) as served:
            busy = await served.connect()
            busy.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            while gate.waiting < 1:
                await asyncio.sleep(0.01)
            for _ in range(300):
                (await served.connect()).writer.close()
            await asyncio.sleep(1.1)
            gate.open.set()
            assert (await busy.answer()).status == 200
    lines = [line for line in logged if line["event"] == "connection_closed"]
    omitted = [line["counts"] for line in logged if line["event"] == "lines_omitted"]
    assert 20 <= len(lines) <= 100
    assert len(lines) + sum(sum(counts.values()) for counts in omitted) == 300


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


@pytest.mark.parametrize(
    "not_http",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        CHUNKED + b"\r\nzz\r\n",
    ],
)
async def test_request_that_is_not_http_is_answered_with_400_and_logged(not_http: bytes) -> None:
    with capture_logs() as logged:
        async with serving(echo) as served:
            client = await served.connect()
            client.send(not_http)
            answer = await client.answer()
            assert await read_until_closed(client) == b""
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert answer.error["extensions"] == {"code": "BAD_REQUEST"}
    assert [line["reason"] for line in logged if "reason" in line] == ["malformed"]


async def test_bad_head_is_answered_after_earlier_requests() -> None:
    gate = Gate()
    async with serving(gate) as served:
        client = await served.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n")
        while gate.waiting < 1:
            await asyncio.sleep(0.01)
        gate.open.set()
        assert (await client.answer()).status == 200
        assert await read_until_closed(client) == b""


async def test_unsupported_upgrade_is_ignored() -> None:
    """The HTTP client of Java offers HTTP/2 in this way with its first request."""
    async with serving(echo) as served:
        client = await served.connect()
        client.send(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"Upgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n\r\n"
        )
        assert (await client.answer()).status == 200


@pytest.mark.slow
async def test_silent_connections_above_the_limit_do_not_block_clients() -> None:
    async with serving(echo, limit=50) as served:
        silent = [await served.connect() for _ in range(200)]
        await asyncio.sleep(1.1)
        client = await served.connect()
        assert (await client.request()).status == 200
        for one in silent:
            one.writer.close()


async def test_connection_with_too_many_pipelined_requests_is_closed() -> None:
    """The responses to the accepted requests are sent first."""
    before = closed("pipeline_full")
    may_respond = asyncio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        await may_respond.wait()
        await echo(scope, receive, send)

    async with serving(wait) as served:
        client = await served.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 5000)
        async with asyncio.timeout(5):
            while closed("pipeline_full") == before:
                await asyncio.sleep(0.01)
        may_respond.set()
        read = await read_until_closed(client)
    assert read.count(b"HTTP/1.1 200 ") == 1 + MAX_PIPELINED_REQUESTS
    assert read.lower().count(b"connection: close\r\n") == 1
    assert closed("pipeline_full") == before + 1
