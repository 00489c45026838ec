"""nginx and Caddy with the files of docs/operations/proxy, in front of two API processes."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest

from segmentql.settings import Settings
from tests.conftest import PATIENCE_SECONDS, Sql, until
from tests.e2e.proxies import ApiProcess, Proxy, running_proxy
from tests.e2e.up import READY_SECONDS
from tests.graphql.websocket_client import opened
from tests.timeline import make_segment

pytestmark = pytest.mark.e2e

MAX_BODY_BYTES = 4_194_304
KEEP_ALIVE_SECONDS = 4
PROXY_KEEP_ALIVE_SECONDS = 2

CONNECTIONS = Path("/proc/net/tcp")

QUERY = {"query": "{ segments { nodes { slug } } }"}
CHANGES = "subscription { changes(start: NOW) { events { __typename } } }"
JOIN = {
    "query": 'mutation { updateUserSegments(input: {userId: 1, add: ["A"]}) { errors { code } } }'
}


@pytest.fixture(scope="module", params=["nginx", "caddy"])
async def proxy(
    request: pytest.FixtureRequest, apis: list[ApiProcess], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Proxy]:
    """Run a proxy.

    The times for idle connections are shorter than in its file. The limit of requests without a key
    allows the same burst, but then one request in a minute, so that a slow client reaches it, too.
    """
    folder = tmp_path_factory.mktemp(request.param)
    line = "keepalive_timeout {}s;" if request.param == "nginx" else "keepalive {}s"
    changes = [(line.format(60), line.format(PROXY_KEEP_ALIVE_SECONDS))]
    if request.param == "nginx":
        changes.append(("rate=20r/s", "rate=1r/m"))
    first, second = apis
    async with running_proxy(
        request.param, folder, (first.address, second.address), *changes
    ) as proxy:
        yield proxy


@pytest.fixture(scope="module")
async def apis(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[list[ApiProcess]]:
    """Run two API processes, which require keys."""
    folder = tmp_path_factory.mktemp("apis")
    changes = {
        "SEGMENTQL_AUTH": "required",
        "SEGMENTQL_KEEP_ALIVE_SECONDS": str(KEEP_ALIVE_SECONDS),
    }
    processes = [ApiProcess(settings, folder / f"{number}.log", **changes) for number in (1, 2)]
    async with AsyncExitStack() as stack:
        for process in processes:
            stack.push_async_callback(process.stop)
        await asyncio.gather(*(process.start() for process in processes))
        yield processes


async def test_request_has_one_id_for_client_proxy_and_service(
    proxy: Proxy, client: httpx.AsyncClient
) -> None:
    response = await client.post("/graphql", json=QUERY, headers={"x-request-id": "from-client"})
    assert response.json()["data"] == {"segments": {"nodes": [{"slug": "A"}]}}
    assert response.headers["x-request-id"] == "from-client"
    assert response.headers["strict-transport-security"] == "max-age=31536000"
    created = (await client.post("/graphql", json=QUERY)).headers["x-request-id"]
    await _wait_for_log(proxy, "from-client")
    await _wait_for_log(proxy, created)


async def _wait_for_log(proxy: Proxy, text: str) -> None:
    async def is_logged() -> bool:
        return text in proxy.log

    await until(is_logged)


async def test_log_has_no_key_and_no_query_string(proxy: Proxy, client: httpx.AsyncClient) -> None:
    token = client.headers["authorization"].removeprefix("Bearer ")
    headers = {"x-api-key": token, "x-request-id": "secret-request"}
    await client.get("/graphql", params={**QUERY, "extra": "value"}, headers=headers)
    await _wait_for_log(proxy, "secret-request")
    assert token not in proxy.log
    assert "extra=value" not in proxy.log


async def test_clients_can_use_http_2(proxy: Proxy) -> None:
    context = proxy.tls()
    context.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection("localhost", proxy.port, ssl=context)
    connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
    assert connection.selected_alpn_protocol() == "h2"
    writer.transport.abort()


async def test_plain_http_is_redirected_by_nginx(proxy: Proxy) -> None:
    if proxy.name != "nginx":
        pytest.skip("Caddy redirects by itself if it listens on port 80")
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.get(f"http://localhost:{proxy.plain_port}/graphql?x=1")
    assert response.status_code == 308
    assert response.headers["location"] == "https://localhost/graphql?x=1"


@pytest.mark.parametrize("encoding", ["identity", "gzip", "zstd"])
async def test_entity_tags_and_compression_are_those_of_the_service(
    client: httpx.AsyncClient, sql: Sql, encoding: str
) -> None:
    for number in range(60):
        await make_segment(sql, f"SEGMENT_WITH_A_LONG_NAME_{number}")
    query = {"query": "{ segments(first: 100) { nodes { slug } } }"}
    headers = {"accept-encoding": encoding}
    response = await client.get("/graphql", params=query, headers=headers)
    assert response.headers.get("content-encoding", "identity") == encoding
    if encoding != "zstd":  # which httpx does not decode
        assert len(response.json()["data"]["segments"]["nodes"]) == 61
    tag = response.headers["etag"]
    assert tag.startswith('"' if encoding == "identity" else 'W/"')
    headers["if-none-match"] = tag
    unchanged = await client.get("/graphql", params=query, headers=headers)
    assert (unchanged.status_code, unchanged.content) == (304, b"")


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "//metrics", "/x/../metrics"])
async def test_metrics_are_not_reachable(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(str(client.base_url).rstrip("/") + path)
    assert response.status_code == 404
    assert b"segmentql" not in response.content


async def test_event_arrives_while_its_stream_is_open(client: httpx.AsyncClient) -> None:
    """A proxy that collects the response would send this small event after the end only."""
    headers = {"accept": "text/event-stream"}
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        client.stream("POST", "/graphql", json={"query": CHANGES}, headers=headers) as response,
    ):
        assert response.status_code == 200
        lines = response.aiter_lines()
        await anext(lines)  # the first comment, so the stream is open
        await client.post("/graphql", json=JOIN)
        async for line in lines:
            if "MembershipEvent" in line:
                break


async def test_websocket_receives_events(proxy: Proxy, client: httpx.AsyncClient) -> None:
    url = f"wss://localhost:{proxy.port}/graphql"
    authorization = client.headers["authorization"]
    async with opened(url, ssl=proxy.tls(), origin=proxy.url) as socket:
        await socket.init({"authorization": authorization})
        await socket.subscribe(CHANGES)
        first = await socket.receive()  # the empty batch at the start
        assert first["payload"]["data"]["changes"]["events"] == []
        await client.post("/graphql", json=JOIN)
        second = await socket.receive()
        assert second["payload"]["data"]["changes"]["events"] == [{"__typename": "MembershipEvent"}]


async def test_body_limit_is_that_of_the_service(proxy: Proxy, client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    largest = json.dumps(QUERY).encode().ljust(MAX_BODY_BYTES)
    response = await client.post("/graphql", content=largest, headers=headers)
    assert response.status_code == 200
    # Without its body: Caddy closes the connection early, and some clients would only see that.
    reader, writer = await asyncio.open_connection("localhost", proxy.port, ssl=proxy.tls())
    writer.write(
        b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1)
    )
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.transport.abort()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"LIMIT_EXCEEDED"' in answer.replace(b" ", b"")


async def test_connections_to_the_service_are_used_again(
    client: httpx.AsyncClient, apis: list[ApiProcess]
) -> None:
    """The pause is longer than the proxy keeps connections, which the service keeps even longer."""
    ports = {api.port for api in apis}
    before = _connections_of(ports)
    for number in range(200):
        if number == 100:
            await asyncio.sleep((PROXY_KEEP_ALIVE_SECONDS + KEEP_ALIVE_SECONDS) / 2)
        response = await client.post("/graphql", json=QUERY)
        assert response.status_code == 200, (number, response.text)
    assert _connections_of(ports) - before < 50


def _connections_of(ports: set[int]) -> int:
    """Return the number of open and recently closed ends of connections with these ports."""
    if not CONNECTIONS.exists():
        pytest.skip("counts connections in Linux' /proc")
    rows = CONNECTIONS.read_text().splitlines()[1:]
    used = [int(end.partition(":")[2], 16) for row in rows for end in row.split()[1:3]]
    return sum(port in ports for port in used)


async def test_restart_of_a_process_fails_no_safe_request(
    client: httpx.AsyncClient, apis: list[ApiProcess]
) -> None:
    is_done = asyncio.Event()
    statuses: list[int] = []

    async def send() -> None:
        while not is_done.is_set():
            response = await client.get("/graphql", params=QUERY)
            statuses.append(response.status_code)

    async with asyncio.TaskGroup() as group:
        senders = [group.create_task(send()) for _ in range(4)]
        try:
            for process in apis:
                await process.stop()
                await until(
                    partial(_has_grown, statuses, len(statuses) + 50), seconds=READY_SECONDS
                )
                await process.start()
        finally:
            is_done.set()
    assert len(senders) == 4
    assert set(statuses) == {200}


async def _has_grown(statuses: list[int], size: int) -> bool:
    return len(statuses) >= size


async def test_nginx_limits_addresses_without_a_key_only(
    proxy: Proxy, client: httpx.AsyncClient
) -> None:
    if proxy.name != "nginx":
        pytest.skip("Debian's Caddy has no module for rate limits")
    async with proxy.client() as anonymous:
        responses = await asyncio.gather(
            *(anonymous.post("/graphql", json=QUERY) for _ in range(150))
        )
        assert {response.status_code for response in responses} == {401, 429}
        rejected = next(response for response in responses if response.status_code == 429)
        assert rejected.json()["errors"][0]["extensions"]["code"] == "RATE_LIMITED"
        assert rejected.headers["retry-after"] == "1"
    responses = await asyncio.gather(*(client.post("/graphql", json=QUERY) for _ in range(150)))
    assert {response.status_code for response in responses} == {200}
