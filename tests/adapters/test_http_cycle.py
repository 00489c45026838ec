"""Responses that are written at once are complete, keep the connection and its order."""

from typing import Any

from starlette.types import Receive, Scope, Send

from segmentql.adapters.http_cycle import RequestCycle
from tests.adapters.http_server import serving

BODY = b'{"data":null}'
HEADERS = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(BODY)
REQUEST = b"GET /%b HTTP/1.1\r\nhost: x\r\n%b\r\n"


async def at_once(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond at once; the path `/twice` also shows that a second response is refused."""
    cycle: Any = send.__self__  # type: ignore[attr-defined]
    assert isinstance(cycle, RequestCycle)
    assert cycle.respond(200, HEADERS, BODY)
    if scope["path"] == "/twice":
        assert not cycle.respond(200, HEADERS, b"x" * len(BODY))


async def exchange(*requests: bytes) -> bytes:
    """Send requests in one write, of which the last one closes, and return all responses."""
    async with serving(at_once) as server:
        client = await server.connect()
        client.writer.write(b"".join(requests))
        return await client.reader.read()


def request(path: bytes, *headers: bytes) -> bytes:
    return REQUEST % (path, b"".join(header + b"\r\n" for header in headers))


async def test_response_has_its_headers_and_the_date() -> None:
    head, _, body = (await exchange(request(b"", b"connection: close"))).partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    names = [line.partition(b":")[0] for line in lines]
    assert status == b"HTTP/1.1 200 OK"
    assert body == BODY
    assert names[-3:] == [b"content-type", b"content-length", b"connection"]
    assert names.count(b"date") == 1


async def test_pipelined_requests_are_answered_on_one_connection() -> None:
    close = request(b"last", b"connection: close")
    read = await exchange(request(b"1"), request(b"twice"), close)
    assert read.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert read.count(BODY) == 3
    assert read.count(b"connection: close\r\n") == 1
    assert read.endswith(BODY)


async def test_http_1_0_connection_is_closed_after_the_response() -> None:
    read = await exchange(b"GET / HTTP/1.0\r\n\r\n")
    assert b"connection: close\r\n" in read
    assert read.endswith(BODY)
