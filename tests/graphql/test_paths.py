"""Paths work with and without a slash at the end, and redirects name no host."""

import httpx
import pytest

from segmentql.settings import Settings
from tests.conftest import Api, serving, without_cost
from tests.graphql.test_http import TYPENAME

FOREIGN_HOST = {"host": "evil.example", "x-forwarded-host": "evil.example"}


async def test_redirect_names_no_host(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"console": "off"})) as api:
        for method in ("GET", "HEAD"):
            response = await api.http.request(method, "/", headers=FOREIGN_HOST)
            assert response.status_code == 307
            assert response.headers["location"] == "/graphql"


@pytest.mark.parametrize(
    "path",
    ["/graphql", "/healthz", "/readyz", "/metrics", "/static", "/nowhere", "//evil.example"],
)
async def test_no_path_redirects_to_the_host_that_the_client_names(api: Api, path: str) -> None:
    for spelling in (path, f"{path}/", f"{path}//", f"{path}/x/", f"/{path}/.."):
        response = await api.http.get(f"http://evil.example{spelling}", headers=FOREIGN_HOST)
        assert "evil" not in response.headers.get("location", "")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_slash_at_the_end_changes_nothing(api: Api, path: str) -> None:
    assert (await api.http.get(path)).status_code == 200
    assert (await api.http.get(f"{path}/")).status_code == 200


async def test_graphql_accepts_a_slash_at_the_end(api: Api) -> None:
    post_response = await api.http.post("/graphql/", json=TYPENAME)
    get_response = await api.http.get("/graphql/", params=TYPENAME)
    for response in (post_response, get_response):
        assert response.status_code == 200
        assert without_cost(response.json()) == {"data": {"__typename": "Query"}}
    page = await api.http.get("/graphql/", headers={"accept": "text/html"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert (await api.http.put("/graphql/")).status_code == 405


async def test_graphql_is_found_below_the_root_path_of_a_proxy(api: Api) -> None:
    app = api.http._transport.app  # type: ignore[attr-defined]
    transport = httpx.ASGITransport(app=app, root_path="/prefix")
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        for path in ("/prefix/graphql", "/prefix/graphql/"):
            response = await client.post(path, json=TYPENAME)
            assert without_cost(response.json()) == {"data": {"__typename": "Query"}}
        assert (await client.get("/prefix/healthz")).status_code == 200
