"""The pages for browsers have the public settings and load nothing from other hosts."""

from pathlib import Path

import pytest

from segmentql.adapters.pages import META_ELEMENT, Page, missing_pages, origin
from segmentql.settings import Settings
from tests.conftest import Api, serving

WEB = Path(__file__).parents[2] / "web"
BROWSER = {"accept": "text/html,*/*;q=0.8"}


@pytest.mark.parametrize(
    ("file", "public_settings"),
    [
        ("index.html", {"auth": "required", "graphiql": "off"}),
        ("graphiql.html", {"auth": "required", "console": "off"}),
    ],
)
def test_page_has_each_public_setting_once(file: str, public_settings: dict[str, str]) -> None:
    original = (WEB / file).read_bytes().decode()
    read = Page(WEB / file, public_settings=public_settings, root_path="/segmentql").read()
    page = read.decode()
    for name, content in {**public_settings, "root-path": "/segmentql"}.items():
        assert META_ELEMENT.format(name, content) not in original
        assert page.count(META_ELEMENT.format(name, content)) == 1
        assert page.count(f"segmentql-{name}") == 1


@pytest.mark.parametrize("root_path", ["", "/tools/segmentql"])
def test_files_of_a_page_have_addresses_below_the_root_path(tmp_path: Path, root_path: str) -> None:
    file = tmp_path / "index.html"
    file.write_text('<link href="./favicon.svg" /><script src="./assets/x.js"></script>')
    page = Page(file, public_settings={}, root_path=root_path).read().decode()
    assert page == (
        f'<link href="{root_path}/static/favicon.svg" />'
        f'<script src="{root_path}/static/assets/x.js"></script>'
    )


def test_missing_page_says_how_to_build_it(tmp_path: Path) -> None:
    page = Page(tmp_path / "index.html", public_settings={"auth": "off"})
    assert "make web" in page.read().decode()
    (tmp_path / "index.html").write_text("built")
    assert page.read() == b"built"


def test_origin_is_the_url_without_its_path() -> None:
    assert origin("https://s3.example.com:9000/path?x=1") == "https://s3.example.com:9000"


async def test_console_may_connect_to_the_server_and_the_store(settings: Settings) -> None:
    public = {"s3_public_endpoint_url": "https://files.example.com:9000/path"}
    for changes, origins in (
        (public, "'self' https://files.example.com:9000"),
        ({}, f"'self' {origin(settings.store.endpoint_url)}"),
    ):
        async with serving(settings.model_copy(update=changes)) as api:
            response = await api.http.get("/", headers=BROWSER)
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        policy = response.headers["content-security-policy"].split("; ")
        assert f"connect-src {origins}" in policy
        assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy)


async def test_graphiql_connects_to_the_server_only(api: Api) -> None:
    response = await api.http.get("/graphql", headers=BROWSER)
    policy = response.headers["content-security-policy"].split("; ")
    assert "connect-src 'self'" in policy


async def test_each_page_can_be_disabled(settings: Settings) -> None:
    for console, graphiql in (("on", "off"), ("off", "on"), ("off", "off")):
        changes = {"console": console, "graphiql": graphiql}
        async with serving(settings.model_copy(update=changes)) as api:
            root = await api.http.get("/", headers=BROWSER)
            graphql = await api.http.get("/graphql", headers={"accept": "text/html"})
        assert root.status_code == (200 if console == "on" else 307)
        assert graphql.status_code == (200 if graphiql == "on" else 406)


@pytest.mark.parametrize("auth", ["off", "required"])
async def test_pages_say_whether_a_key_is_required(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, auth: str
) -> None:
    monkeypatch.setattr("segmentql.adapters.pages.STATIC", WEB)
    async with serving(settings.model_copy(update={"auth": auth})) as api:
        for path in ("/", "/graphql"):
            page = (await api.http.get(path, headers=BROWSER)).text
            assert META_ELEMENT.format("auth", auth) in page


def test_only_enabled_pages_can_be_missing(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segmentql.adapters.pages.STATIC", tmp_path)

    def missing(console: str, graphiql: str) -> list[str]:
        changes = {"console": console, "graphiql": graphiql}
        return missing_pages(settings.model_copy(update=changes))

    assert missing("on", "on") == ["console", "GraphiQL"]
    assert missing("on", "off") == ["console"]
    assert missing("off", "on") == ["GraphiQL"]
    assert missing("off", "off") == []
    (tmp_path / "index.html").write_text("built")
    assert missing("on", "on") == ["GraphiQL"]
