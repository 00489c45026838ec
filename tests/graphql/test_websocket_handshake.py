"""The `Origin` and the `Host` of a WebSocket's handshake."""

from collections.abc import AsyncIterator

import orjson
import pytest
from websockets.exceptions import InvalidStatus

from segmentql.adapters.database import Database
from segmentql.settings import Settings
from tests.graphql.stream_server import StreamServer, serving_streams
from tests.graphql.websocket_client import opened


@pytest.fixture
async def server(database: Database, settings: Settings) -> AsyncIterator[StreamServer]:
    async with serving_streams(database, settings) as running:
        yield running


@pytest.mark.parametrize(
    "origin",
    ["https://app.example.com", "http://127.0.0.1:{port}", "https://127.0.0.1:{port}"],
)
async def test_allowed_origin_and_same_host_are_accepted(server: StreamServer, origin: str) -> None:
    async with opened(server.ws_url, origin=origin.format(port=server.port)) as socket:
        await socket.init()


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://app.example.com",
        "https://app.example.com.evil.example",
        "http://127.0.0.1",
        "http://localhost:{port}",
        "null",
        "file://",
        "chrome-extension://127.0.0.1:{port}",
    ],
)
async def test_other_origin_is_rejected_at_the_handshake(server: StreamServer, origin: str) -> None:
    with pytest.raises(InvalidStatus) as rejected:
        async with opened(server.ws_url, origin=origin.format(port=server.port)):
            pass
    response = rejected.value.response
    assert response.status_code == 403
    assert orjson.loads(response.body or b"")["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert [line["status"] for line in server.lines] == [403]


async def test_host_of_another_machine_is_rejected_without_keys(server: StreamServer) -> None:
    """DNS rebinding: the page's origin is the same host."""
    with pytest.raises(InvalidStatus) as rejected:
        async with opened(
            f"ws://evil.example:{server.port}/graphql",
            origin=f"http://evil.example:{server.port}",
            host="127.0.0.1",
        ):
            pass
    assert rejected.value.response.status_code == 403
