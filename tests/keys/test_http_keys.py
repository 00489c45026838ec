"""Requests without a valid key are rejected before the body is read; some paths stay open."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from segmentql.adapters.database import Database
from segmentql.settings import Settings
from tests.conftest import Api, Sql, serving, until, without_cost
from tests.keys.clients import UNKNOWN, bearer, make_key, query_data, send_query

JSON = "application/json"
GRAPHQL_JSON = "application/graphql-response+json"
TOKEN = "prometheus-may-look"
HELP = "# HELP segmentql_requests_total"


async def test_body_of_a_request_without_a_valid_key_is_not_read(auth_api: Api, sql: Sql) -> None:
    chunks_read = 0

    async def body_chunks() -> Any:
        nonlocal chunks_read
        for _ in range(5):
            chunks_read += 1
            yield b" " * 1000

    for headers in ({}, {"authorization": bearer(UNKNOWN)}):
        response = await auth_api.http.post(
            "/graphql", content=body_chunks(), headers={"content-type": JSON, **headers}
        )
        assert response.status_code == 401
    assert chunks_read == 0


async def test_rejection_has_the_accepted_media_type(auth_api: Api) -> None:
    for media_type in (JSON, GRAPHQL_JSON):
        for method, options in (("POST", {"json": {"query": "{ a }"}}), ("GET", {})):
            response = await auth_api.http.request(
                method,
                "/graphql?query={__typename}",
                headers={"accept": media_type},
                **options,  # type: ignore[arg-type]
            )
            assert response.status_code == 401
            assert response.headers["content-type"] == f"{media_type}; charset=utf-8"
            assert response.headers["www-authenticate"] == 'Bearer realm="segmentql"'
            assert "x-request-id" in response.headers


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   "])
async def test_authorization_scheme_is_case_insensitive(
    auth_api: Api, database: Database, scheme: str
) -> None:
    key = await make_key(database, "READER")
    response = await send_query(auth_api, scheme + key.token, "{ __typename }")
    assert without_cost(response.json()) == {"data": {"__typename": "Query"}}


async def test_header_without_exactly_one_key_is_malformed(
    auth_api: Api, database: Database
) -> None:
    key = await make_key(database, "ADMIN")
    for authorization in (
        "",
        "Bearer",
        key.token,
        f"Token {key.token}",
        f"Bearer{key.token}",
        f"Bearer {key.token}0",
        f"Bearer {key.token} {key.token}",
        f"Bearer {key.token.upper()}",
        f"Bearer {key.token.replace('sgql', 'ghp')}",
        f"Bearer sgql__{'0' * 64}",
        "Bearer " + "a" * 5000,
    ):
        response = await send_query(auth_api, authorization, "{ __typename }")
        assert response.status_code == 401
        assert "must be" in response.json()["errors"][0]["message"]


async def test_get_requires_a_key(auth_api: Api, database: Database) -> None:
    key = await make_key(database, "READER")
    responses = [
        await auth_api.http.get("/graphql", params={"query": "{ __typename }"}, headers=headers)
        for headers in ({}, {"authorization": bearer(key.token)})
    ]
    assert [response.status_code for response in responses] == [401, 200]


async def test_mutation_by_get_is_rejected_even_with_a_key(
    auth_api: Api, database: Database
) -> None:
    key = await make_key(database, "ADMIN")
    response = await auth_api.http.get(
        "/graphql",
        params={"query": "mutation { createUser(input: {id: 7}) { user { id } } }"},
        headers={"authorization": bearer(key.token)},
    )
    assert response.status_code == 405


async def test_page_and_probes_need_no_key(auth_api: Api) -> None:
    page = await auth_api.http.get("/graphql", headers={"accept": "text/html"})
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (await auth_api.http.get("/healthz")).status_code == 200
    assert (await auth_api.http.get("/readyz")).status_code == 200


async def test_metrics_token_protects_metrics(auth_settings: Settings, settings: Settings) -> None:
    for base in (auth_settings, settings):
        async with serving(base.model_copy(update={"metrics_token": TOKEN})) as api:
            for authorization in (
                None,
                f"Bearer {TOKEN}x",
                "Bearer ",
                TOKEN,
                f"Bearer {TOKEN[1:]}",
            ):
                headers = {} if authorization is None else {"authorization": authorization}
                response = await api.http.get("/metrics", headers=headers)
                assert response.status_code == 401
                assert response.headers["www-authenticate"] == 'Bearer realm="segmentql metrics"'
                assert HELP not in response.text
                assert TOKEN not in response.text
            authorized = await api.http.get(
                "/metrics", headers={"authorization": f"Bearer {TOKEN}"}
            )
            assert authorized.status_code == 200
            assert HELP in authorized.text


async def test_metrics_without_a_token_are_closed_if_keys_are_required(
    auth_api: Api, api: Api, database: Database
) -> None:
    key = await make_key(database, "ADMIN")
    for headers in ({}, {"authorization": bearer(key.token)}):
        forbidden = await auth_api.http.get("/metrics", headers=headers)
        assert forbidden.status_code == 403
        assert "SEGMENTQL_METRICS_TOKEN" in forbidden.text
        assert HELP not in forbidden.text
    assert HELP in (await api.http.get("/metrics")).text


async def test_forbidden_field_is_not_logged_as_a_fault(auth_api: Api, database: Database) -> None:
    key = await make_key(database, "READER")
    with capture_logs() as logged:
        await send_query(auth_api, bearer(key.token), "{ apiKeys { nodes { id } } }")
    assert logged == []
    assert await query_data(auth_api, key, "{ __typename }") == {"__typename": "Query"}


async def test_rate_limited_key_gets_retry_after(
    auth_settings: Settings, database: Database, sql: Sql
) -> None:
    busy, other = await make_key(database, "READER"), await make_key(database, "READER")
    async with serving(auth_settings.model_copy(update={"rate_per_second": 5})) as api:
        responses = [await send_query(api, bearer(busy.token), "{ __typename }") for _ in range(50)]
        limited = next(response for response in responses if response.status_code == 429)
        assert limited.headers["retry-after"] == "1"
        (error,) = limited.json()["errors"]
        assert error["extensions"] == {"code": "RATE_LIMITED", "limit": 5}
        assert (await send_query(api, bearer(other.token), "{ __typename }")).status_code == 200

        async def is_accepted_again() -> bool:
            return (await send_query(api, bearer(busy.token), "{ __typename }")).status_code == 200

        await until(is_accepted_again)
