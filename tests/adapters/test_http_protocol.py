"""The server limits heads, trailers and pipelined requests, and rejects what is not HTTP."""

import asyncio

import orjson
import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from segmentql.adapters.http_connections import MAX_PIPELINED_REQUESTS
from segmentql.adapters.http_protocol import MAX_HEAD_BYTES
from tests.adapters.connection_helpers import Gate, closed, read_until_closed
from tests.adapters.http_server import echo, serving

CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"


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
