"""HTTP headers of GraphQL requests: media types, methods and request ids."""

import gzip

import orjson
import pytest

from tests.conftest import Api, Sql, without_cost
from tests.graphql.test_http import CREATE, GRAPHQL_JSON, JSON, TYPENAME, only_error, post

CREATE_BODY = orjson.dumps({"query": CREATE})


async def test_form_content_types_are_rejected_without_effect(api: Api, sql: Sql) -> None:
    for content_type in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/graphql",
        "application/jsonp",
        "",
    ):
        body = orjson.dumps({"query": CREATE})
        response = await post(api, body, content_type=content_type)
        assert response.status_code == 415
        assert only_error(response)["extensions"] == {"code": "BAD_REQUEST"}
        assert await sql.fetchval("SELECT count(*) FROM users") == 0


async def test_json_content_type_accepts_parameters_and_any_case(api: Api) -> None:
    for content_type in (
        "application/json; charset=utf-8",
        "Application/JSON",
    ):
        response = await post(api, orjson.dumps(TYPENAME), content_type=content_type)
        assert without_cost(response.json()) == {"data": {"__typename": "Query"}}


async def test_other_methods_are_not_allowed(api: Api) -> None:
    for method in (
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
    ):
        response = await api.http.request(method, "/graphql", json=TYPENAME)
        assert response.status_code == 405


async def test_graphql_response_media_type_gets_the_error_status(api: Api) -> None:
    for accept, media_type, invalid_document in (
        (JSON, JSON, 200),
        ("*/*", JSON, 200),
        ("application/*", JSON, 200),
        ("", JSON, 200),
        (GRAPHQL_JSON, GRAPHQL_JSON, 400),
        (f"{GRAPHQL_JSON}, {JSON};q=0.9", GRAPHQL_JSON, 400),
        (f"{JSON}, {GRAPHQL_JSON}", GRAPHQL_JSON, 400),
    ):
        headers = {"accept": accept}
        executed = await post(api, orjson.dumps(TYPENAME), **headers)
        with_error = await post(api, b'{"query": "{ user(id: 0) { id } }"}', **headers)
        rejected = await post(api, b'{"query": "{ nope }"}', **headers)
        malformed_body = await post(api, b"5", **headers)
        assert executed.headers["content-type"] == f"{media_type}; charset=utf-8"
        assert rejected.headers["content-type"] == f"{media_type}; charset=utf-8"
        statuses = [
            answer.status_code for answer in (executed, with_error, rejected, malformed_body)
        ]
        assert statuses == [200, 200, invalid_document, 400]


async def test_unsupported_accept_header_is_rejected_without_effect(api: Api, sql: Sql) -> None:
    for accept in (
        "text/plain",
        "image/png",
        "application/xml",
    ):
        response = await post(api, orjson.dumps({"query": CREATE}), accept=accept)
        assert response.status_code == 406
        assert await sql.fetchval("SELECT count(*) FROM users") == 0


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ([GRAPHQL_JSON.upper()], GRAPHQL_JSON),
        (["Application/JSON"], JSON),
        (["text/html", GRAPHQL_JSON], GRAPHQL_JSON),
        ([GRAPHQL_JSON, "text/html"], GRAPHQL_JSON),
        ([JSON, f"{GRAPHQL_JSON};q=0"], JSON),
        ([f"{JSON};q=0, */*"], GRAPHQL_JSON),
        ([f"{GRAPHQL_JSON};q=0.5, {JSON};q=0.6"], JSON),
        ([f"{GRAPHQL_JSON}; charset=utf-8, {JSON}; charset=utf-8"], GRAPHQL_JSON),
        (["*/*;q=0.1"], JSON),
        (["nonsense, application/json"], JSON),
        ([JSON + ", text/x" * 1000], JSON),
    ],
)
async def test_accept_headers_are_merged_and_ranked_by_quality(
    api: Api, accept: list[str], media_type: str
) -> None:
    headers = [("content-type", JSON), *(("accept", line) for line in accept)]
    response = await api.http.post("/graphql", content=orjson.dumps(TYPENAME), headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"] == f"{media_type}; charset=utf-8"


@pytest.mark.parametrize(
    "accept",
    [
        [f"{JSON};q=0"],
        [f"{JSON};q=0, {GRAPHQL_JSON};q=0.0", "*/*;q=0"],
        ["application/*;q=0, */*"],
        ["text/html", "text/plain"],
    ],
)
async def test_media_type_with_quality_zero_is_excluded(
    api: Api, sql: Sql, accept: list[str]
) -> None:
    headers = [("content-type", JSON), *(("accept", line) for line in accept)]
    body = orjson.dumps({"query": CREATE})
    response = await api.http.post("/graphql", content=body, headers=headers)
    assert response.status_code == 406
    assert await sql.fetchval("SELECT count(*) FROM users") == 0


async def test_excluded_html_page_is_not_served(api: Api) -> None:
    for accept in ("text/html;q=0, application/json", "TEXT/HTML;q=0.0, */*"):
        response = await api.http.get("/graphql", headers={"accept": accept})
        assert response.status_code == 400
    response = await api.http.get("/graphql", headers={"accept": "TEXT/HTML"})
    assert response.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("path", ["/graphql", "/healthz", "/metrics"])
@pytest.mark.parametrize("name", ["Authorization", "content-type", "CONTENT-LENGTH", "X-API-Key"])
async def test_repeated_header_is_rejected(api: Api, sql: Sql, path: str, name: str) -> None:
    values = {"content-type": JSON, "content-length": str(len(CREATE_BODY))}
    values[name.lower()] = values.get(name.lower(), "Bearer x")
    headers = [*values.items(), (name, values[name.lower()])]
    response = await api.http.post(path, content=CREATE_BODY, headers=headers)
    assert response.status_code == 400
    error = only_error(response)
    assert error["extensions"] == {"code": "BAD_REQUEST"}
    assert error["message"] == f"The request has more than one {name.lower()} header."
    assert await sql.fetchval("SELECT count(*) FROM users") == 0


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "GZIP", "identity, gzip", "x"])
async def test_compressed_body_is_rejected_with_the_reason(
    api: Api, sql: Sql, encoding: str
) -> None:
    response = await post(api, gzip.compress(CREATE_BODY), content_encoding=encoding)
    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "identity"
    error = only_error(response)
    assert error["extensions"] == {"code": "BAD_REQUEST", "allowed": "identity"}
    assert "Content-Encoding" in error["message"]
    assert await sql.fetchval("SELECT count(*) FROM users") == 0


async def test_body_with_identity_encoding_is_accepted(api: Api) -> None:
    for encoding in ("identity", "Identity", ""):
        response = await post(api, orjson.dumps(TYPENAME), content_encoding=encoding)
        assert without_cost(response.json()) == {"data": {"__typename": "Query"}}


async def test_browser_gets_the_graphiql_page(api: Api) -> None:
    response = await api.http.get("/graphql", headers={"accept": "text/html,*/*;q=0.8"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"


async def test_request_id_of_the_client_is_returned(api: Api) -> None:
    for request_id in (
        "abc",
        "A-b_c.1:2",
        "x" * 128,
    ):
        response = await post(api, orjson.dumps(TYPENAME), x_request_id=request_id)
        assert response.headers.get_list("x-request-id") == [request_id]


async def test_missing_or_invalid_request_id_is_replaced(api: Api) -> None:
    for request_id in ("", "a b", "x" * 129, "a\tb", "ü", "<script>"):
        headers = {b"content-type": JSON.encode(), b"x-request-id": request_id.encode()}
        answers = [
            await api.http.post("/graphql", content=orjson.dumps(TYPENAME), headers=headers)
            for _ in range(2)
        ]
        first, second = [answer.headers["x-request-id"] for answer in answers]
        assert first != second
        assert len(first) == len(second) == 32
