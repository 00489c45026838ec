"""API keys of streams, with the real key cache: how they are sent, their roles, limits and end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest

from segmentql.adapters.database import Database
from segmentql.errors import Unavailable
from segmentql.graphql.http.stream_registry import KEY_CHECK_SECONDS
from segmentql.graphql.types.dataloader import LoaderRegistry
from segmentql.keys.cache import REFRESH_SECONDS, ApiKeyCache
from segmentql.keys.loaders import KeyByPublicId
from segmentql.principal import Principal
from segmentql.settings import Settings
from tests.conftest import PATIENCE_SECONDS
from tests.graphql.stream_server import StreamServer, serving_streams
from tests.graphql.websocket_client import Socket, opened
from tests.keys.clients import UNKNOWN, Key, bearer, make_key, revoke

OPEN = "subscription { ticks(count: 1, isOpen: true) { number } }"
STREAM = {"accept": "text/event-stream"}


@asynccontextmanager
async def serving_with_keys(
    database: Database, settings: Settings, **limits: Any
) -> AsyncIterator[StreamServer]:
    cache = ApiKeyCache(database, LoaderRegistry(database, primary=True).get(KeyByPublicId).load)
    async with (
        cache.running(),
        serving_streams(database, settings, authenticate=cache.authenticate, **limits) as running,
    ):
        yield running


@pytest.fixture
async def server(database: Database, settings: Settings) -> AsyncIterator[StreamServer]:
    async with serving_with_keys(database, settings) as running:
        yield running


@pytest.fixture
async def key(database: Database, server: StreamServer) -> Key:
    return await make_key(database, "READER")


@asynccontextmanager
async def sse(
    server: StreamServer, authorization: str | None, query: str = OPEN
) -> AsyncIterator[httpx.Response]:
    headers = {**STREAM, **({"authorization": authorization} if authorization else {})}
    async with (
        httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client,
        client.stream("POST", server.http_url, json={"query": query}, headers=headers) as response,
    ):
        yield response


@pytest.mark.parametrize("name", ["authorization", "Authorization"])
async def test_key_is_accepted_in_connection_init(
    server: StreamServer, key: Key, name: str
) -> None:
    async with opened(server.ws_url) as socket:
        await socket.init({name: bearer(key.token)})
        await socket.subscribe(OPEN)
        assert (await socket.receive())["type"] == "next"


async def test_key_is_accepted_in_the_header_of_the_handshake(
    server: StreamServer, key: Key
) -> None:
    headers = {"authorization": bearer(key.token)}
    async with opened(server.ws_url, headers=headers) as socket:
        await socket.init()


@pytest.mark.parametrize("token", [None, UNKNOWN, "nonsense"])
async def test_missing_or_invalid_key_closes_with_4403(
    server: StreamServer, token: str | None
) -> None:
    async with opened(server.ws_url) as socket:
        payload = None if token is None else {"authorization": bearer(token)}
        await socket.send({"type": "connection_init", "payload": payload})
        code, _ = await socket.close_code()
        assert code == 4403
    async with sse(server, bearer(token) if token else None) as response:
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == 'Bearer realm="segmentql"'
    assert server.stats.opened == 0


async def test_key_in_the_url_is_ignored_and_not_logged(
    server: StreamServer, key: Key, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{server.ws_url}?authorization=Bearer%20{key.token}&token={key.token}"
    with caplog.at_level("DEBUG"):
        async with opened(url) as socket:
            await socket.send({"type": "connection_init"})
            assert (await socket.close_code())[0] == 4403
    ours = [record for record in caplog.records if not record.name.startswith("websockets.client")]
    assert key.token not in "".join(record.getMessage() for record in ours)
    assert key.token not in str(server.lines)


async def test_role_is_checked(server: StreamServer, key: Key) -> None:
    query = "subscription { secrets { number } }"
    async with opened(server.ws_url) as socket:
        await socket.init({"authorization": bearer(key.token)})
        await socket.subscribe(query)
        (error,) = await socket.messages_until_end()
        assert error["payload"][0]["extensions"]["code"] == "FORBIDDEN"
    async with sse(server, bearer(key.token), query) as response:
        text = (await response.aread()).decode()
        assert '"code":"FORBIDDEN"' in text


async def test_evaluator_may_not_subscribe(server: StreamServer, database: Database) -> None:
    evaluator = await make_key(database, "EVALUATOR")
    message = "ticks requires the role READER, but the API key has the role EVALUATOR."
    async with opened(server.ws_url) as socket:
        await socket.init({"authorization": bearer(evaluator.token)})
        await socket.subscribe(OPEN)
        (error,) = await socket.messages_until_end()
        (formatted,) = error["payload"]
        assert (formatted["message"], formatted["path"]) == (message, ["ticks"])
        assert formatted["extensions"]["code"] == "FORBIDDEN"
    async with sse(server, bearer(evaluator.token)) as response:
        text = (await response.aread()).decode()
        assert message in text
        assert '"code":"FORBIDDEN"' in text
    assert server.stats.opened == 0


async def first_event(response: httpx.Response) -> AsyncIterator[str]:
    """Read the first event of a stream, and return the iterator of the rest."""
    parts = response.aiter_text()
    async for part in parts:
        if "event: next" in part:
            break
    return parts


async def test_revoked_key_ends_its_streams_within_a_second(
    server: StreamServer, key: Key, database: Database
) -> None:
    """The streams of other keys go on."""
    assert REFRESH_SECONDS + KEY_CHECK_SECONDS < 1  # less the time of a statement
    other = await make_key(database, "READER", name="other")
    async with (
        opened(server.ws_url) as revoked_socket,
        opened(server.ws_url) as other_socket,
        sse(server, bearer(key.token)) as response,
    ):
        for socket, token in ((revoked_socket, key.token), (other_socket, other.token)):
            await socket.init({"authorization": bearer(token)})
            await socket.subscribe(OPEN)
            await socket.receive()
        parts = await first_event(response)
        await revoke(database, key)
        closed = asyncio.create_task(revoked_socket.close_code())
        rest = "".join([part async for part in parts])
        code, reason = await closed
        assert "complete" not in rest
        assert (code, reason) == (4403, "The API key is not valid any more")
        await other_socket.send({"type": "ping"})
        assert await other_socket.receive() == {"type": "pong"}
    outcomes = [line["outcome"] for line in server.lines if line.get("code") == "UNAUTHENTICATED"]
    assert outcomes == ["failed", "failed"]


async def test_streams_and_sockets_of_a_key_are_limited(
    database: Database, settings: Settings
) -> None:
    async with (
        serving_with_keys(database, settings, max_streams_per_key=2) as server,
        AsyncExitStack() as stack,
    ):
        keys = [await make_key(database, "READER", name=name) for name in ("ada", "bob")]
        full, free = (bearer(key.token) for key in keys)
        sockets: list[Socket] = []
        for _ in range(2):
            sockets.append(await stack.enter_async_context(opened(server.ws_url)))
            await sockets[-1].init({"authorization": full})
        async with opened(server.ws_url) as third:
            await third.send({"type": "connection_init", "payload": {"authorization": full}})
            assert (await third.close_code())[0] == 1013
        async with sse(server, full) as response:
            assert response.status_code == 429
            (error,) = orjson.loads(await response.aread())["errors"]
            assert error["extensions"] == {"code": "LIMIT_EXCEEDED", "limit": 2}
        for number in range(3):
            await sockets[0].subscribe(OPEN, id=str(number))
        answers = [await sockets[0].receive() for _ in range(3)]
        assert sorted((answer["id"], answer["type"]) for answer in answers) == [
            ("0", "next"),
            ("1", "next"),
            ("2", "error"),
        ]
        async with sse(server, free) as response:
            assert response.status_code == 200


async def test_rate_of_a_key_is_limited_on_a_socket(database: Database, settings: Settings) -> None:
    async with serving_with_keys(database, settings, rate_per_second=10) as server:
        key = await make_key(database, "READER")
        async with opened(server.ws_url) as socket:
            await socket.init({"authorization": bearer(key.token)})
            for number in range(60):
                await socket.subscribe(OPEN, id=str(number))
            answers = [await socket.receive() for _ in range(60)]
            codes = {
                answer["payload"][0]["extensions"]["code"]
                for answer in answers
                if answer["type"] == "error"
            }
            assert "RATE_LIMITED" in codes
            for _ in range(60):
                await socket.send({"type": "pong"})
            assert (await socket.close_code())[0] == 1008
    ends = [line for line in server.lines if line.get("outcome") == "failed"]
    assert {line["code"] for line in ends} == {"RATE_LIMITED"}


async def test_outage_of_the_database_closes_with_1013_and_is_logged_as_a_fault(
    database: Database, settings: Settings
) -> None:
    async def authenticate(authorization: bytes | None) -> Principal:
        raise Unavailable

    async with (
        serving_streams(database, settings, authenticate=authenticate) as server,
        opened(server.ws_url) as socket,
    ):
        await socket.send({"type": "connection_init"})
        assert await socket.close_code() == (1013, "The database is unavailable.")
    (line,) = server.lines
    assert (line["level"], line["close_code"]) == ("warning", 1013)
