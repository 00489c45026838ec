"""A proxy publishes the service below `SEGMENTQL_ROOT_PATH`, and removes that path or keeps it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from segmentql.adapters.pages import META_ELEMENT
from segmentql.settings import Settings
from tests.conftest import Api, Sql, serving, without_cost
from tests.graphql.test_http import TYPENAME

ROOT_PATH = "/tools/segmentql"
WEB = Path(__file__).parents[2] / "web"
HTML = {"accept": "text/html"}
FLAG_CONTEXT = {"context": {"targetingKey": "1"}}


@pytest.fixture(scope="module")
async def proxied(settings: Settings) -> AsyncIterator[Api]:
    async with serving(settings.model_copy(update={"root_path": ROOT_PATH})) as api:
        yield api


@pytest.mark.parametrize("prefix", [ROOT_PATH, ""])
async def test_each_path_works_with_and_without_the_root_path(
    proxied: Api, sql: Sql, prefix: str
) -> None:
    for path in ("/graphql", "/graphql/"):
        response = await proxied.http.post(f"{prefix}{path}", json=TYPENAME)
        assert without_cost(response.json()) == {"data": {"__typename": "Query"}}
    for path in ("/healthz", "/metrics"):
        assert (await proxied.http.get(f"{prefix}{path}")).status_code == 200
    for path in ("/readyz", "/readyz/"):  # its status depends on the speed of the machine
        assert "database" in (await proxied.http.get(f"{prefix}{path}")).json()
    path = f"{prefix}/ofrep/v1/evaluate/flags/missing"
    response = await proxied.http.post(path, json=FLAG_CONTEXT)
    assert response.status_code == 404
    assert response.json()["errorCode"] == "FLAG_NOT_FOUND"
    assert response.json()["key"] == "missing"


@pytest.mark.parametrize(
    "path",
    [
        f"{ROOT_PATH}x/graphql",
        f"{ROOT_PATH}/nowhere",
        f"/x{ROOT_PATH}/graphql",
        "/tools/graphql",
        f"{ROOT_PATH.upper()}/graphql",
    ],
)
async def test_other_paths_are_not_found(proxied: Api, path: str) -> None:
    assert (await proxied.http.post(path, json=TYPENAME)).status_code == 404


async def test_pages_have_the_root_path_at_each_address(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segmentql.adapters.pages.STATIC", WEB)
    async with serving(settings.model_copy(update={"root_path": ROOT_PATH})) as api:
        for prefix in ("", ROOT_PATH):
            for path in ("/", "/graphql", "/graphql/"):
                response = await api.http.get(prefix + path, headers=HTML)
                assert META_ELEMENT.format("root-path", ROOT_PATH) in response.text
        assert (await api.http.get(ROOT_PATH)).text == (await api.http.get("/")).text


@pytest.mark.parametrize("path", ["/", ROOT_PATH, f"{ROOT_PATH}/"])
async def test_redirect_has_the_root_path(settings: Settings, path: str) -> None:
    changes = {"console": "off", "root_path": ROOT_PATH}
    async with serving(settings.model_copy(update=changes)) as api:
        response = await api.http.get(path)
    assert response.status_code == 307
    assert response.headers["location"] == f"{ROOT_PATH}/graphql"


@pytest.mark.parametrize("root_path", ["", ROOT_PATH])
async def test_root_path_of_another_service_is_not_found(
    settings: Settings, root_path: str
) -> None:
    async with serving(settings.model_copy(update={"root_path": root_path})) as api:
        response = await api.http.post("/other/graphql", json=TYPENAME)
    assert response.status_code == 404
