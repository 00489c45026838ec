"""Headers of GraphQL over HTTP: media types asked and answered, methods, request ids."""

import gzip

import orjson
import pytest

from tests.conftest import Api, Sql, without_cost
from tests.graphql.test_http import CREATE, GRAPHQL_JSON, JSON, TYPENAME, only_error, post

CREATE_BODY = orjson.dumps({"query": CREATE})


async def test_what_a_form_can_send_is_refused_and_changes_nothing(api: Api, sql: Sql) -> None:
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


async def test_json_is_known_with_parameters_and_in_any_case(api: Api) -> None:
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


async def test_the_status_tells_a_refused_document_to_who_accepts_the_media_type(api: Api) -> None:
    for accept, media_type, refused_document in (
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
        refused = await post(api, b'{"query": "{ nope }"}', **headers)
        no_request = await post(api, b"5", **headers)
        assert executed.headers["content-type"] == f"{media_type}; charset=utf-8"
        assert refused.headers["content-type"] == f"{media_type}; charset=utf-8"
        statuses = [answer.status_code for answer in (executed, with_error, refused, no_request)]
        assert statuses == [200, 200, refused_document, 400]


async def test_another_media_type_is_not_acceptable_and_nothing_is_done(api: Api, sql: Sql) -> None:
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
async def test_accept_is_a_list_with_qualities_over_all_its_lines(
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


async def test_a_page_that_is_excluded_is_not_served(api: Api) -> None:
    for accept in ("text/html;q=0, application/json", "TEXT/HTML;q=0.0, */*"):
        response = await api.http.get("/graphql", headers={"accept": accept})
        assert response.status_code == 400
    response = await api.http.get("/graphql", headers={"accept": "TEXT/HTML"})
    assert response.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("path", ["/graphql", "/healthz", "/metrics"])
@pytest.mark.parametrize("name", ["Authorization", "content-type", "CONTENT-LENGTH"])
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


async def test_body_whose_encoding_is_identity_is_read(api: Api) -> None:
    for encoding in ("identity", "Identity", ""):
        response = await post(api, orjson.dumps(TYPENAME), content_encoding=encoding)
        assert without_cost(response.json()) == {"data": {"__typename": "Query"}}


async def test_a_browser_gets_a_page(api: Api) -> None:
    response = await api.http.get("/graphql", headers={"accept": "text/html,*/*;q=0.8"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"


async def test_a_callers_request_id_is_said_back(api: Api) -> None:
    for given in (
        "abc",
        "A-b_c.1:2",
        "x" * 128,
    ):
        response = await post(api, orjson.dumps(TYPENAME), x_request_id=given)
        assert response.headers.get_list("x-request-id") == [given]


async def test_without_a_decent_request_id_each_answer_gets_its_own(api: Api) -> None:
    for given in ("", "a b", "x" * 129, "a\tb", "ü", "<script>"):
        headers = {b"content-type": JSON.encode(), b"x-request-id": given.encode()}
        answers = [
            await api.http.post("/graphql", content=orjson.dumps(TYPENAME), headers=headers)
            for _ in range(2)
        ]
        first, second = [answer.headers["x-request-id"] for answer in answers]
        assert first != second
        assert len(first) == len(second) == 32
