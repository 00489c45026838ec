"""Results of GET requests have an entity tag, and clients may cache them if a setting allows it.

Tests of settings start another application, which takes up to a second.
"""

import httpx
import pytest

from segmentql.settings import Settings
from tests.conftest import Api, Sql, serving
from tests.graphql.test_compression import many_names
from tests.graphql.test_http import GRAPHQL_JSON
from tests.operations import create_user

USER = "{ user(id: 1) { id segments { slug } } }"
LARGE = many_names(45)
ORIGIN = "https://app.example.com"


async def get(api: Api, query: str, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.http.get("/graphql", params={"query": query}, headers=names)


async def test_equal_results_have_the_same_tag(api: Api, sql: Sql) -> None:
    first = await get(api, USER, x_request_id="a")
    second = await get(api, USER, x_request_id="b")
    tag = first.headers["etag"]
    assert second.headers["etag"] == tag
    assert tag.startswith('"')
    await create_user(api, id=1)
    assert (await get(api, USER)).headers["etag"] != tag


async def test_unchanged_result_is_not_sent_again(api: Api) -> None:
    first = await get(api, USER)
    tag = first.headers["etag"]
    for header, same_tag in ((tag, tag), (f'"x", W/{tag}', f"W/{tag}"), ("*", tag)):
        same = await get(api, USER, if_none_match=header, x_request_id="again")
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", same_tag)
        assert same.headers["cache-control"] == "no-store"
        assert same.headers["x-request-id"] == "again"
        assert not {"content-length", "content-encoding"} & set(same.headers)
    for header in ('"other"', tag.strip('"'), ""):
        changed = await get(api, USER, if_none_match=header)
        assert (changed.status_code, changed.content) == (200, first.content)


async def test_lines_of_if_none_match_are_one_list(api: Api) -> None:
    tag = (await get(api, USER)).headers["etag"]
    lines = [("if-none-match", tag), ("if-none-match", '"x"')]
    same = await api.http.get("/graphql", params={"query": USER}, headers=lines)
    assert same.status_code == 304


async def test_tag_of_a_compressed_result_is_weak_and_names_every_encoding(api: Api) -> None:
    plain = await get(api, LARGE, accept_encoding="identity")
    packed = await get(api, LARGE, accept_encoding="gzip")
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["etag"] == f"W/{plain.headers['etag']}"
    for tag in (plain.headers["etag"], packed.headers["etag"]):
        for encoding in ("identity", "gzip", "zstd"):
            same = await get(api, LARGE, if_none_match=tag, accept_encoding=encoding)
            assert (same.status_code, same.headers["etag"]) == (304, tag)


async def test_result_that_is_sent_in_chunks_has_a_tag(api: Api, sql: Sql) -> None:
    """The response has more than 1 MiB, which takes about a second on a slow machine."""
    await sql.execute("INSERT INTO users SELECT n, now() FROM generate_series(1, 1000) AS n")
    ids = ",".join(map(str, range(1, 1001)))
    fields = " ".join(f"n{n}".rjust(90, "a") + ": id" for n in range(14))
    query = f"{{ usersById(ids: [{ids}]) {{ {fields} }} }}"
    first = await get(api, query, accept_encoding="gzip")
    assert len(first.content) > 1_048_576
    assert first.headers["content-encoding"] == "gzip"
    same = await get(api, query, if_none_match=first.headers["etag"])
    assert (same.status_code, same.content) == (304, b"")


async def test_clients_may_cache_results_only_if_the_setting_allows_it(
    settings: Settings, sql: Sql
) -> None:
    async with serving(settings.model_copy(update={"get_max_age_seconds": 30})) as api:
        for query in (USER, LARGE):
            result = await get(api, query)
            same = await get(api, query, if_none_match=result.headers["etag"])
            for response in (result, same):
                assert response.headers["cache-control"] == "private, max-age=30"
                assert response.headers["vary"] == (
                    "accept, accept-encoding, authorization, segmentql-read"
                )
            assert (result.status_code, same.status_code) == (200, 304)


@pytest.mark.parametrize("max_age", [0, 30])
async def test_errors_are_never_cached(settings: Settings, sql: Sql, max_age: int) -> None:
    async with serving(settings.model_copy(update={"get_max_age_seconds": max_age})) as api:
        for query in ("{ nope }", "{ user(id: 0) { id } }", "mutation { nope }", "{"):
            for accept in ("application/json", GRAPHQL_JSON, "text/plain"):
                response = await get(api, query, accept=accept, if_none_match="*")
                assert response.status_code != 304
                assert "etag" not in response.headers
                assert response.headers["cache-control"] == "no-store"


async def test_results_of_post_requests_have_no_tag(settings: Settings, sql: Sql) -> None:
    async with serving(settings.model_copy(update={"get_max_age_seconds": 30})) as api:
        response = await api.http.post(
            "/graphql", json={"query": USER}, headers={"if-none-match": "*"}
        )
        assert response.status_code == 200
        assert "etag" not in response.headers
        assert response.headers["cache-control"] == "no-store"


async def test_pages_of_listed_origins_get_all_headers(settings: Settings, sql: Sql) -> None:
    changes = {"get_max_age_seconds": 30, "cors_origins": (ORIGIN,)}
    async with serving(settings.model_copy(update=changes)) as api:
        response = await get(api, USER, origin=ORIGIN)
        assert response.headers["etag"]
        assert response.headers["cache-control"] == "private, max-age=30"
        assert response.headers["vary"].endswith("segmentql-read, Origin")
