"""nginx and Caddy publish the service below a path, which they keep or remove."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator

import httpx
import pytest

from segmentql.adapters.pages import STATIC
from segmentql.settings import Settings
from tests.conftest import environment
from tests.e2e.proxies import ROOT_PATH, ApiProcess, Proxy, documented_changes, running_proxy
from tests.graphql.websocket_client import opened

pytestmark = pytest.mark.e2e

QUERY = {"query": "{ segments { nodes { slug } } }"}
JOIN = {
    "query": 'mutation { updateUserSegments(input: {userId: 1, add: ["A"]}) { errors { code } } }'
}
FILE = re.compile(r'(?:src|href)="([^"]+)"')


@pytest.fixture(scope="module")
async def server(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ApiProcess]:
    log = tmp_path_factory.mktemp("api") / "serve.log"
    changes = {"SEGMENTQL_AUTH": "required", "SEGMENTQL_ROOT_PATH": ROOT_PATH}
    server = ApiProcess(settings, log, **changes)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


@pytest.fixture(
    scope="module",
    params=[(name, is_kept) for name in ("nginx", "caddy") for is_kept in (True, False)],
    ids=lambda value: f"{value[0]}-{'keeps' if value[1] else 'removes'}",
)
async def proxy(
    request: pytest.FixtureRequest, server: ApiProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Proxy]:
    """Run a proxy with the documented changes of its file."""
    name, is_kept = request.param
    changes = documented_changes(name, is_path_kept=is_kept)
    folder = tmp_path_factory.mktemp(name)
    async with running_proxy(
        name, folder, (server.address, server.address), *changes, ready_path=f"{ROOT_PATH}/readyz"
    ) as proxy:
        yield proxy


async def test_api_is_below_the_path(client: httpx.AsyncClient) -> None:
    response = await client.post(f"{ROOT_PATH}/graphql", json=QUERY)
    assert response.json()["data"] == {"segments": {"nodes": [{"slug": "A"}]}}
    flag = f"{ROOT_PATH}/ofrep/v1/evaluate/flags/A"
    response = await client.post(flag, json={"context": {"targetingKey": "1"}})
    assert (response.status_code, response.json()["value"]) == (200, False)
    outside = await client.post("/graphql", json=QUERY)
    assert "segments" not in outside.text


@pytest.mark.parametrize("prefix", ["", ROOT_PATH, ROOT_PATH * 2])
async def test_metrics_are_not_reachable(client: httpx.AsyncClient, prefix: str) -> None:
    response = await client.get(f"{prefix}/metrics")
    assert response.status_code == 404
    assert b"# HELP" not in response.content


@pytest.mark.parametrize("path", ["/", "/graphql", "/graphql/"])
async def test_files_of_the_pages_load(client: httpx.AsyncClient, path: str) -> None:
    if not (STATIC / "index.html").exists():
        pytest.skip("the pages are not built: make web")
    page = await client.get(ROOT_PATH + path, headers={"accept": "text/html"})
    files = FILE.findall(page.text)
    assert len(files) > 3
    for file in files:
        assert file.startswith(f"{ROOT_PATH}/static/")
        assert (await client.get(file)).status_code == 200


async def test_path_without_its_slash_leads_to_the_console(client: httpx.AsyncClient) -> None:
    response = await client.get(ROOT_PATH)
    assert response.status_code in {301, 308}
    location = client.base_url.join(response.headers["location"])
    assert location == client.base_url.join(f"{ROOT_PATH}/")


async def test_websocket_opens_below_the_path(proxy: Proxy, client: httpx.AsyncClient) -> None:
    url = f"wss://localhost:{proxy.port}{ROOT_PATH}/graphql"
    async with opened(url, ssl=proxy.tls(), origin=proxy.url) as socket:
        await socket.init({"authorization": client.headers["authorization"]})
        await socket.subscribe("subscription { changes { cursor } }")
        assert (await socket.receive())["payload"]["data"]["changes"]["cursor"]


async def test_commands_accept_an_address_with_the_path(
    proxy: Proxy, client: httpx.AsyncClient, settings: Settings
) -> None:
    token = client.headers["authorization"].removeprefix("Bearer ")
    added = await client.post(f"{ROOT_PATH}/graphql", json=JOIN)
    assert added.json()["data"]["updateUserSegments"]["errors"] == []
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", "changes", "--from", "earliest", "--no-follow"),
        env={
            **environment(settings),
            "SEGMENTQL_URL": proxy.url + ROOT_PATH,
            "SEGMENTQL_API_KEY": token,
            "SSL_CERT_FILE": str(proxy.folder / "fullchain.pem"),
        },
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert b'"A"' in output
