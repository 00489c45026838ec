"""The files of the pages are compressed by the build; only they are served under `/static`."""

import gzip
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from segmentql.adapters.static_files import IMMUTABLE
from segmentql.settings import Settings
from tests.conftest import Api, serving

BUILD = Path(__file__).parents[2] / "web" / "build.py"
SCRIPT = "console.log('a');\n" * 1000
FILES = {
    "assets/main-1a2b.js": SCRIPT,
    "assets/tiny-1a2b.js": "1",
    "assets/help.html": "<title>Help</title>",
    "icon.svg": "<svg>" + "<g></g>" * 100 + "</svg>",
    "index.html": "<title>Console</title>" * 10,
    "graphiql.html": "<title>GraphiQL</title>" * 10,
    ".stamp": "1a2b",
    ".vite/manifest.json": "{}" * 100,
}


def compress(folder: Path) -> None:
    """Compress files as the build does."""
    spec = importlib.util.spec_from_file_location("web_build", BUILD)
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    build.compress_files(folder)


@pytest.fixture
async def pages_api(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Api]:
    """Run a service with built files and without GraphiQL."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    compress(tmp_path)
    monkeypatch.setattr("segmentql.adapters.pages.STATIC", tmp_path)
    async with serving(settings.model_copy(update={"console": "on", "graphiql": "off"})) as api:
        yield api


def test_build_compresses_what_becomes_smaller(tmp_path: Path) -> None:
    for name in ("main.js", "index.html"):
        (tmp_path / name).write_text(SCRIPT)
    (tmp_path / "tiny.js").write_text("1")
    compress(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "index.html",
        "main.js",
        "main.js.gz",
        "tiny.js",
    ]
    compressed = (tmp_path / "main.js.gz").read_bytes()
    assert gzip.decompress(compressed).decode() == SCRIPT
    assert compressed[4:8] == bytes(4)  # no time, so that equal sources have equal builds


async def test_compressed_file_is_sent_as_the_build_wrote_it(
    pages_api: Api, tmp_path: Path
) -> None:
    path = "/static/assets/main-1a2b.js"
    stored = (tmp_path / "assets/main-1a2b.js.gz").read_bytes()
    plain = await pages_api.http.get(path, headers={"accept-encoding": "identity"})
    packed = await pages_api.http.get(path, headers={"accept-encoding": "br, gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.headers["content-length"] == str(len(SCRIPT))
    assert packed.headers["content-length"] == str(len(stored))
    assert plain.headers["etag"] != packed.headers["etag"]
    for response in (plain, packed):
        assert response.status_code == 200
        assert response.text == SCRIPT
        assert response.headers["content-type"] == "text/javascript; charset=utf-8"
        assert response.headers["vary"] == "Accept-Encoding"
        assert response.headers["cache-control"] == IMMUTABLE
        assert "script-src 'self'" in response.headers["content-security-policy"]


async def test_server_compresses_nothing_itself(pages_api: Api, tmp_path: Path) -> None:
    (tmp_path / "assets/main-1a2b.js.gz").unlink()
    for name in ("main-1a2b.js", "tiny-1a2b.js"):
        response = await pages_api.http.get(
            f"/static/assets/{name}", headers={"accept-encoding": "gzip"}
        )
        assert response.text == FILES[f"assets/{name}"]
        assert not {"content-encoding", "vary"} & set(response.headers)


async def test_each_encoding_is_not_modified_for_its_own_entity_tag(pages_api: Api) -> None:
    path = "/static/assets/main-1a2b.js"
    tags = {}
    for encoding in ("identity", "gzip"):
        response = await pages_api.http.get(path, headers={"accept-encoding": encoding})
        tags[encoding] = response.headers["etag"]
    for encoding in tags:
        for other, tag in tags.items():
            headers = {"accept-encoding": encoding, "if-none-match": tag}
            response = await pages_api.http.get(path, headers=headers)
            assert response.status_code == (304 if encoding == other else 200)
            assert response.headers["vary"] == "Accept-Encoding"
            assert response.headers["cache-control"] == IMMUTABLE


async def test_file_without_a_hash_in_its_name_is_validated(pages_api: Api) -> None:
    icon = await pages_api.http.get("/static/icon.svg")
    assert icon.headers["content-type"] == "image/svg+xml"
    assert icon.headers["cache-control"] == "no-cache"
    missing = await pages_api.http.get("/static/assets/missing-1a2b.js")
    assert missing.status_code == 404
    assert "immutable" not in missing.headers["cache-control"]


@pytest.mark.parametrize(
    "path",
    [
        "graphiql.html",
        "index.html",
        "assets/../graphiql.html",
        "%67raphiql.html",
        "graphiql.HTML",
        "graphiql.html/",
        "assets/help.html",
        ".stamp",
        ".vite/manifest.json",
        "assets/main-1a2b.js.gz",
    ],
)
async def test_pages_and_private_files_are_not_served(pages_api: Api, path: str) -> None:
    assert (await pages_api.http.get(f"/static/{path}")).status_code == 404
    assert (await pages_api.http.get("/")).text == FILES["index.html"]


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ([], "identity"),
        (["zstd, gzip;q=0.5"], "gzip"),  # the build writes no zstd
        (["zstd, *;q=0"], "identity"),
        (["deflate", "gzip"], "gzip"),
        (["gzip; q=0.000, *"], "identity"),
        (["identity, gzip;q=0.5"], "identity"),
        (["gzip;q=2"], "identity"),
    ],
)
async def test_encoding_of_a_file_is_the_preferred_one(
    pages_api: Api, accepted: list[str], encoding: str
) -> None:
    pages_api.http.headers.pop("accept-encoding")
    headers = [("accept-encoding", value) for value in accepted]
    response = await pages_api.http.get("/static/assets/main-1a2b.js", headers=headers)
    assert response.text == SCRIPT
    assert response.headers.get("content-encoding", "identity") == encoding
