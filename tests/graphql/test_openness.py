"""CORS, schema exposure and security headers follow the settings."""

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

ALLOWED_ORIGIN = "https://app.example.com"
OTHER_ORIGIN = "https://evil.example"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type",
}
MISTAKES = (  # each is so similar to a name that graphql-core would suggest it
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
async def minimal_api(settings: Settings, sql: Sql) -> AsyncIterator[Api]:
    """Run a service with the least schema exposure."""
    changes = {"introspection": "off", "suggestions": "off", "console": "off", "graphiql": "off"}
    async with serving(settings.model_copy(update=changes)) as api:
        yield api


@pytest.fixture
async def cors_api(settings: Settings, sql: Sql) -> AsyncIterator[Api]:
    """Run a service that allows one origin."""
    async with serving(settings.model_copy(update={"cors_origins": (ALLOWED_ORIGIN,)})) as api:
        yield api


async def test_default_settings_allow_no_other_origin(api: Api) -> None:
    for origin in (ALLOWED_ORIGIN, OTHER_ORIGIN, "null"):
        preflight = await api.http.options("/graphql", headers={"origin": origin, **PREFLIGHT})
        assert preflight.status_code == 405
        answer = await post(api, orjson.dumps(TYPENAME), origin=origin)
        for response in (preflight, answer):
            assert [n for n in response.headers if n.startswith("access-control")] == []


async def test_only_the_listed_origin_is_allowed_and_without_cookies(cors_api: Api) -> None:
    for origin, allowed in (
        (ALLOWED_ORIGIN, True),
        (OTHER_ORIGIN, False),
        ("null", False),
        (ALLOWED_ORIGIN.upper(), False),
        (f"{ALLOWED_ORIGIN}.evil.example", False),
        ("http://app.example.com", False),
    ):
        headers = {"origin": origin, **PREFLIGHT}
        preflight = await cors_api.http.options("/graphql", headers=headers)
        assert preflight.status_code == (200 if allowed else 400)
        answer = await post(cors_api, orjson.dumps(TYPENAME), origin=origin)
        for response in (preflight, answer):
            allowed_origin = response.headers.get("access-control-allow-origin")
            assert allowed_origin == (origin if allowed else None)
            assert "access-control-allow-credentials" not in response.headers
            assert "Origin" in response.headers["vary"]
        assert preflight.headers["access-control-allow-methods"] == "GET, POST"


async def test_listed_origin_may_use_no_other_method_or_header(cors_api: Api) -> None:
    for headers in (
        {**PREFLIGHT, "access-control-request-method": "DELETE"},
        {**PREFLIGHT, "access-control-request-headers": "cookie"},
    ):
        answer = await cors_api.http.options(
            "/graphql", headers={"origin": ALLOWED_ORIGIN, **headers}
        )
        assert answer.status_code == 400


async def test_listed_origin_can_read_rejections(cors_api: Api) -> None:
    answer = await post(cors_api, b"5", origin=ALLOWED_ORIGIN)
    assert answer.status_code == 400
    assert answer.headers["access-control-allow-origin"] == ALLOWED_ORIGIN
    assert "x-request-id" in answer.headers["access-control-expose-headers"]


async def test_listed_origin_cannot_send_a_form(cors_api: Api, sql: Sql) -> None:
    before = await all_rows(sql)
    for origin in (ALLOWED_ORIGIN, OTHER_ORIGIN):
        body = orjson.dumps({"query": CREATE})
        answer = await post(cors_api, body, content_type="text/plain", origin=origin)
        assert answer.status_code == 415
    assert await all_rows(sql) == before


async def test_suggestions_can_be_disabled_in_every_error(
    api: Api, minimal_api: Api, sql: Sql
) -> None:
    operations: list[tuple[str, dict[str, Any]]] = [(query, {}) for query in MISTAKES]
    operations += [(UPDATE, {"input": value}) for value in WRONG_VARIABLES]
    for query, variables in operations:
        for client_api, has_suggestions in ((api, True), (minimal_api, False)):
            body = await client_api.body(query, **variables)
            errors = body["errors"]
            assert "data" not in body, query
            assert {error["extensions"]["code"] for error in errors} == {"BAD_REQUEST"}
            suggestions = [
                error["message"] for error in errors if "Did you mean" in error["message"]
            ]
            assert bool(suggestions) is has_suggestions, (query, variables, errors)


async def test_introspection_can_be_disabled(api: Api, minimal_api: Api) -> None:
    for query in (
        "{ __schema { queryType { name } } }",
        '{ __type(name: "User") { name } }',
        "query { ...F } fragment F on Query { __schema { types { name } } }",
    ):
        assert "errors" not in await api.body(query)
        body = await minimal_api.body(query)
        assert "data" not in body
        assert {error["extensions"]["code"] for error in body["errors"]} == {"BAD_REQUEST"}
    assert await minimal_api("{ __typename }") == {"__typename": "Query"}


async def test_page_can_be_disabled(api: Api, minimal_api: Api) -> None:
    accept = {"accept": "text/html,*/*;q=0.8"}
    assert (await api.http.get("/graphql", headers=accept)).status_code == 200
    response = await minimal_api.http.get("/graphql", headers=accept)
    assert response.status_code == 400
    assert only_error(response)["extensions"] == {"code": "BAD_REQUEST"}
    assert (
        await minimal_api.http.get("/graphql", headers={"accept": "text/html"})
    ).status_code == 406
    assert (await minimal_api.http.get("/static/index.html")).status_code == 404


async def test_every_response_has_the_security_headers(api: Api) -> None:
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


async def test_fault_outside_graphql_is_returned_without_its_cause(settings: Settings) -> None:
    app = create_app(settings)
    async with serving(settings, app=app) as api:
        _forget_the_settings(app)
        answer = await api.http.get("/metrics")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error\n")
    assert {name: answer.headers.get(name) for name in SAFE} == SAFE


def _forget_the_settings(app: Starlette) -> None:
    app.state.settings = None


async def test_content_security_policy_allows_only_own_scripts(api: Api) -> None:
    page = await api.http.get("/graphql", headers={"accept": "text/html"})
    (policy,) = page.headers.get_list("content-security-policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["connect-src"] == "'self'"
    assert "://" not in policy
    assert page.headers.get_list("cache-control") == ["no-cache"]
    assert page.headers.get_list("x-content-type-options") == ["nosniff"]
