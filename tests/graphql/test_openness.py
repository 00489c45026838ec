"""Who else's pages may ask, what a client may learn of the schema, and the headers of answers."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from starlette.applications import Starlette

from segmentql.app import create_app
from segmentql.settings import Settings
from tests.back_dating import all_rows
from tests.conftest import Api, Sql, serving
from tests.graphql.test_http import CREATE, TYPENAME, only_error, post

OURS = "https://app.example.com"
THEIRS = "https://evil.example"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type",
}
MISTAKES = (  # each so near to something that graphql-core would name it
    "{ usr(id: 1) { id } }",
    "{ user(idd: 1) { id } }",
    "{ user(id: 1) { idd } }",
    "{ user(id: 1) }",
    "{ user(id: 1) { ... on Usr { id } } }",
    "query($id: IDD!) { user(id: $id) { id } }",
    "fragment F on Segmentt { id } { __typename }",
    "mutation { createSegment(input: {slugg: 1}) { segment { id } } }",
    "mutation { updateUserSegments(input: {userId: 1, onExisting: KEP}) { segmentsAdded } }",
    'mutation { updateUserSegments(input: {userId: 1, onExisting: "KEEP"}) { segmentsAdded } }',
)
WRONG_VARIABLES = (
    {"userId": 1, "onExisting": "KEP"},
    {"userId": 1, "onExisting": "keep"},
    {"userIdd": 1},
    {"userId": 1, "ad": []},
)
UPDATE = (
    "mutation($input: UpdateUserSegmentsInput!)"
    " { updateUserSegments(input: $input) { segmentsAdded } }"
)
SAFE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


@pytest.fixture
async def quiet(settings: Settings, sql: Sql) -> AsyncIterator[Api]:
    """A service that says as little as it can."""
    changes = {"introspection": "off", "suggestions": "off", "graphiql": "off"}
    async with serving(settings.model_copy(update=changes)) as api:
        yield api


@pytest.fixture
async def listed(settings: Settings, sql: Sql) -> AsyncIterator[Api]:
    """A service that the pages of one origin may ask."""
    async with serving(settings.model_copy(update={"cors_origins": (OURS,)})) as api:
        yield api


async def test_by_default_no_other_origin_is_let_in(api: Api) -> None:
    for origin in (OURS, THEIRS, "null"):
        preflight = await api.http.options("/graphql", headers={"origin": origin, **PREFLIGHT})
        assert preflight.status_code == 405
        answer = await post(api, orjson.dumps(TYPENAME), origin=origin)
        for response in (preflight, answer):
            assert [n for n in response.headers if n.startswith("access-control")] == []


async def test_a_listed_origin_alone_is_let_in_and_never_with_cookies(listed: Api) -> None:
    for origin, allowed in (
        (OURS, True),
        (THEIRS, False),
        ("null", False),
        (OURS.upper(), False),
        (f"{OURS}.evil.example", False),
        ("http://app.example.com", False),
    ):
        headers = {"origin": origin, **PREFLIGHT}
        preflight = await listed.http.options("/graphql", headers=headers)
        assert preflight.status_code == (200 if allowed else 400)
        answer = await post(listed, orjson.dumps(TYPENAME), origin=origin)
        for response in (preflight, answer):
            told = response.headers.get("access-control-allow-origin")
            assert told == (origin if allowed else None)
            assert "access-control-allow-credentials" not in response.headers
            assert "Origin" in response.headers["vary"]
        assert preflight.headers["access-control-allow-methods"] == "GET, POST"


async def test_a_listed_origin_asks_for_no_other_method_or_header(listed: Api) -> None:
    for asked in (
        {**PREFLIGHT, "access-control-request-method": "DELETE"},
        {**PREFLIGHT, "access-control-request-headers": "cookie"},
    ):
        answer = await listed.http.options("/graphql", headers={"origin": OURS, **asked})
        assert answer.status_code == 400


async def test_a_listed_origin_reads_refusals_too(listed: Api) -> None:
    answer = await post(listed, b"5", origin=OURS)
    assert answer.status_code == 400
    assert answer.headers["access-control-allow-origin"] == OURS
    assert "x-request-id" in answer.headers["access-control-expose-headers"]


async def test_a_listed_origin_still_cannot_send_a_form(listed: Api, sql: Sql) -> None:
    before = await all_rows(sql)
    for origin in (OURS, THEIRS):
        body = orjson.dumps({"query": CREATE})
        answer = await post(listed, body, content_type="text/plain", origin=origin)
        assert answer.status_code == 415
    assert await all_rows(sql) == before


async def test_suggestions_are_made_and_can_be_left_out_wherever_they_come_from(
    api: Api, quiet: Api, sql: Sql
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = [(query, {}) for query in MISTAKES]
    asked += [(UPDATE, {"input": given}) for given in WRONG_VARIABLES]
    for query, variables in asked:
        for asking, made in ((api, True), (quiet, False)):
            body = await asking.body(query, **variables)
            errors = body["errors"]
            assert "data" not in body, query
            assert {error["extensions"]["code"] for error in errors} == {"BAD_REQUEST"}
            said = [error["message"] for error in errors if "Did you mean" in error["message"]]
            assert bool(said) is made, (query, variables, errors)


async def test_introspection_can_be_left_out(api: Api, quiet: Api) -> None:
    for query in (
        "{ __schema { queryType { name } } }",
        '{ __type(name: "User") { name } }',
        "query { ...F } fragment F on Query { __schema { types { name } } }",
    ):
        assert "errors" not in await api.body(query)
        body = await quiet.body(query)
        assert "data" not in body
        assert {error["extensions"]["code"] for error in body["errors"]} == {"BAD_REQUEST"}
    assert await quiet("{ __typename }") == {"__typename": "Query"}


async def test_the_page_can_be_left_out(api: Api, quiet: Api) -> None:
    accept = {"accept": "text/html,*/*;q=0.8"}
    assert (await api.http.get("/graphql", headers=accept)).status_code == 200
    response = await quiet.http.get("/graphql", headers=accept)
    assert response.status_code == 400
    assert only_error(response)["extensions"] == {"code": "BAD_REQUEST"}
    assert (await quiet.http.get("/graphql", headers={"accept": "text/html"})).status_code == 406
    assert (await quiet.http.get("/explorer/index.html")).status_code == 404


async def test_every_answer_is_kept_from_sniffing_framing_and_caches(api: Api) -> None:
    for answer in (
        await post(api, orjson.dumps(TYPENAME)),
        await post(api, b"5"),
        await api.http.get("/graphql", params={"query": "{ __typename }"}),
        await api.http.delete("/graphql"),
        await api.http.get("/healthz"),
        await api.http.get("/readyz"),
        await api.http.get("/metrics"),
        await api.http.get("/nowhere"),
        await api.http.post("/healthz"),
    ):
        assert {name: answer.headers.get_list(name) for name in SAFE} == {
            name: [value] for name, value in SAFE.items()
        }


async def test_a_fault_beside_graphql_is_told_without_its_reason(settings: Settings) -> None:
    app = create_app(settings)
    async with serving(settings, app=app) as api:
        _forget_the_settings(app)
        answer = await api.http.get("/metrics")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error\n")
    assert {name: answer.headers.get(name) for name in SAFE} == SAFE


def _forget_the_settings(app: Starlette) -> None:
    app.state.settings = None


async def test_pages_run_only_what_is_ours_in_no_frame(api: Api) -> None:
    page = await api.http.get("/graphql", headers={"accept": "text/html"})
    (policy,) = page.headers.get_list("content-security-policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["connect-src"] == "'self'"
    assert "://" not in policy
    assert page.headers.get_list("cache-control") == ["no-cache"]
    assert page.headers.get_list("x-content-type-options") == ["nosniff"]
