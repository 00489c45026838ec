"""Responses are compressed for clients that accept it, if that makes them smaller.

Tests of settings start another application, which takes up to a second.
"""

import asyncio
import gzip
import os
import sys
from typing import Any

import httpx
import pytest
from starlette.types import Message

from segmentql.adapters.content_encoding import ContentEncoding
from segmentql.adapters.database import Database
from segmentql.graphql.http.compression import INLINE_BYTES, MIN_BYTES, ResponseCompressor
from segmentql.graphql.http.media_types import JSON
from segmentql.graphql.http.response_sender import ResponseSender
from segmentql.graphql.http.responses import PreparedResponse
from segmentql.logs import RequestLog
from segmentql.settings import Settings
from tests.conftest import Api, Sql, serving
from tests.graphql.stream_server import Lines, serving_streams

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ENCODINGS = ("gzip", "zstd")
ORIGIN = "https://app.example.com"


def decoded(response: httpx.Response) -> bytes:
    """Return the body without its encoding. httpx decodes only gzip itself."""
    if response.headers.get("content-encoding") == "zstd":
        return zstd.decompress(response.content)
    return response.content


async def ask(api: Api, query: str, accept_encoding: str | None, **headers: str) -> httpx.Response:
    if accept_encoding is not None:
        headers["accept-encoding"] = accept_encoding
    request = api.http.build_request("POST", "/graphql", json={"query": query}, headers=headers)
    if accept_encoding is None:
        del request.headers["accept-encoding"]  # httpx adds it
    return await api.http.send(request)


def many_names(count: int) -> str:
    """Return a query whose response has about 50 bytes for each name, at most 50 names."""
    fields = " ".join(f"{f'name_{n}':_>35}: __typename" for n in range(count))
    return f"{{{fields}}}"


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_response_has_the_same_body_in_fewer_bytes(api: Api, encoding: str) -> None:
    plain = await ask(api, many_names(45), None)
    response = await ask(api, many_names(45), encoding)
    assert decoded(response) == plain.content
    assert response.headers["content-encoding"] == encoding
    assert int(response.headers["content-length"]) < len(plain.content) / 2
    assert "content-encoding" not in plain.headers
    assert int(plain.headers["content-length"]) == len(plain.content)
    for name in ("content-type", "cache-control", "x-content-type-options"):
        assert response.headers[name] == plain.headers[name]


async def test_both_forms_name_the_header_that_they_depend_on(api: Api) -> None:
    for encoding in (None, "identity", *ENCODINGS):
        response = await ask(api, many_names(45), encoding)
        assert response.headers["vary"] == "accept-encoding"


async def test_lines_of_accept_encoding_are_one_list(api: Api) -> None:
    lines = [("accept-encoding", "gzip;q=0.5"), ("accept-encoding", "identity;q=0.8")]
    request = api.http.build_request("POST", "/graphql", json={"query": many_names(45)})
    request.headers = httpx.Headers(
        [item for item in request.headers.multi_items() if item[0] != "accept-encoding"] + lines
    )
    assert "content-encoding" not in (await api.http.send(request)).headers


async def test_response_below_the_minimum_is_not_compressed(api: Api) -> None:
    below = await ask(api, many_names(10), "gzip")
    assert len(below.content) < MIN_BYTES
    assert not {"content-encoding", "vary"} & set(below.headers)


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_minimum_is_exact(encoding: str) -> None:
    compressor = ResponseCompressor()
    response = PreparedResponse(b"a" * MIN_BYTES, 200, JSON)
    headers = [(b"accept-encoding", encoding.encode())]
    assert (await compressor.compress(response, headers)).content_encoding == encoding


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("size", [MIN_BYTES, INLINE_BYTES + 1])
async def test_body_that_would_not_be_smaller_is_sent_as_it_is(encoding: str, size: int) -> None:
    body = os.urandom(size)
    response = PreparedResponse(body, 200, JSON)
    headers = [(b"accept-encoding", encoding.encode())]
    same = await ResponseCompressor().compress(response, headers)
    assert (same.body, same.content_encoding) == (body, ContentEncoding.IDENTITY)


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_large_body_is_compressed_in_a_thread(encoding: str) -> None:
    """The task is complete after one iteration of the event loop only if no thread did the work."""
    compressor = ResponseCompressor()
    headers = [(b"accept-encoding", encoding.encode())]
    for size, is_inline in ((INLINE_BYTES, True), (INLINE_BYTES + 1, False)):
        response = PreparedResponse(b"a" * size, 200, JSON)
        task = asyncio.create_task(compressor.compress(response, headers))
        await asyncio.sleep(0)
        assert task.done() is is_inline
        assert (await task).size < size


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_chunks_of_a_large_response_become_one_compressed_body(encoding: str) -> None:
    chunks = [os.urandom(100_000).hex().encode() for _ in range(3)]  # half the size at best
    response = PreparedResponse(b"", 200, JSON, chunks=chunks)
    headers = [(b"accept-encoding", encoding.encode())]
    compressed = await ResponseCompressor().compress(response, headers)
    decompress: Any = gzip.decompress if encoding == "gzip" else zstd.decompress
    assert decompress(b"".join(compressed.chunks)) == b"".join(chunks)
    assert compressed.size < response.size * 0.6
    assert not compressed.body


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_concurrent_responses_are_not_mixed(encoding: str) -> None:
    compressor = ResponseCompressor()
    headers = [(b"accept-encoding", encoding.encode())]
    bodies = [bytes([65 + n]) * (MIN_BYTES + n * 9_000) for n in range(20)]
    responses = await asyncio.gather(
        *(compressor.compress(PreparedResponse(body, 200, JSON), headers) for body in bodies)
    )
    decompress: Any = gzip.decompress if encoding == "gzip" else zstd.decompress
    assert [decompress(response.body) for response in responses] == bodies


async def test_unread_bytes_are_those_after_compression() -> None:
    lines = Lines()
    sender = ResponseSender(
        response_bytes=1_000_000,
        send_seconds=0.1,
        compressor=ResponseCompressor(),
        log=RequestLog(lines, every_request=True),
    )
    response = PreparedResponse(b"", 200, JSON, chunks=[os.urandom(100_000).hex().encode()])
    headers = [(b"accept-encoding", b"gzip")]
    scope = {"method": "POST", "headers": headers, "state": {"request_id": "1"}}

    async def never_read(message: Message) -> None:
        await asyncio.Event().wait()

    async def receive() -> Message:
        raise AssertionError("no server closes the connection")

    await sender.send(response, scope, receive, never_read)
    (line,) = lines.lines
    assert line["event"] == "response_not_read"
    assert 100_000 < line["size"] < 120_000


async def test_response_without_compression_is_unchanged(settings: Settings, sql: Sql) -> None:
    async with serving(settings.model_copy(update={"compression": "off"})) as api:
        response = await ask(api, many_names(45), "gzip, zstd")
        assert not {"content-encoding", "vary"} & set(response.headers)
        assert len(response.json()["data"]) == 45


async def test_pages_of_other_origins_get_compressed_responses(
    settings: Settings, sql: Sql
) -> None:
    async with serving(settings.model_copy(update={"cors_origins": (ORIGIN,)})) as api:
        response = await ask(api, many_names(45), "gzip", origin=ORIGIN)
        assert response.headers["content-encoding"] == "gzip"
        assert response.headers["vary"] == "accept-encoding, Origin"
        assert len(response.json()["data"]) == 45


async def test_large_errors_are_compressed(api: Api) -> None:
    fields = " ".join(f"unknown_{n}" for n in range(40))
    response = await ask(api, f"{{{fields}}}", "gzip")
    assert response.headers["content-encoding"] == "gzip"
    assert "Cannot query field" in response.json()["errors"][0]["message"]


async def test_limit_applies_to_the_size_before_compression(settings: Settings, sql: Sql) -> None:
    async with serving(settings.model_copy(update={"max_response_bytes": 1_500})) as api:
        response = await ask(api, many_names(45), "gzip")
        (error,) = response.json()["errors"]
        assert error["extensions"]["code"] == "LIMIT_EXCEEDED"


async def test_flags_of_openfeature_are_compressed(api: Api, sql: Sql) -> None:
    await sql.execute(
        "INSERT INTO segments (slug, created_at, updated_at)"
        " SELECT 'S' || n, now(), now() FROM generate_series(1, 50) AS n"
    )
    request = {"context": {"targetingKey": "1"}}
    path = "/ofrep/v1/evaluate/flags"
    plain = await api.http.post(path, json=request, headers={"accept-encoding": "identity"})
    packed = await api.http.post(path, json=request, headers={"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.json() == plain.json()
    assert packed.headers["etag"] == f"W/{plain.headers['etag']}"
    for tag in (plain.headers["etag"], packed.headers["etag"]):
        same = await api.http.post(path, json=request, headers={"if-none-match": tag})
        assert (same.status_code, same.headers["etag"]) == (304, tag)


async def test_events_of_streams_are_not_compressed(database: Database, settings: Settings) -> None:
    accept = {"accept": "text/event-stream", "accept-encoding": "gzip, zstd"}
    query = {"query": many_names(45)}
    async with serving_streams(database, settings) as server, httpx.AsyncClient() as client:
        result = await client.post(
            server.http_url, json=query, headers={**accept, "accept": "application/json"}
        )
        events = await client.post(server.http_url, json=query, headers=accept)
    assert result.headers["content-encoding"] == "zstd"
    assert "content-encoding" not in events.headers
    assert events.text.startswith(":\n\nevent: next\n")
    assert len(events.content) > MIN_BYTES
