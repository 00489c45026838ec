"""Keys and HTTP: who is not known is refused before the body is read, and what stays open."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from segmentql.adapters.database import Database
from segmentql.adapters.http import RequestIds
from segmentql.adapters.rate_limiter import RateLimiter
from segmentql.adapters.storage import Storage
from segmentql.errors import AuthenticationFailure, Unauthenticated
from segmentql.graphql.execution.executor import GraphQLExecutor
from segmentql.graphql.http.view import GraphQLView, RequestLimits
from segmentql.principal import Principal
from segmentql.schema import make_schema
from segmentql.settings import Settings
from tests.conftest import Api, Sql, serving, until, without_cost
from tests.graphql.executor_helpers import LIMITS
from tests.keys.clients import UNKNOWN, bearer, make_key, query_data, send_query

JSON = "application/json"
GRAPHQL_JSON = "application/graphql-response+json"
TOKEN = "prometheus-may-look"
HELP = "# HELP segmentql_requests_total"


async def test_nobody_is_heard_to_the_end_who_has_no_key(keyed: Api, sql: Sql) -> None:
    pieces_read = 0

    async def pieces() -> Any:
        nonlocal pieces_read
        for _ in range(5):
            pieces_read += 1
            yield b" " * 1000

    for headers in ({}, {"authorization": bearer(UNKNOWN)}):
        response = await keyed.http.post(
            "/graphql", content=pieces(), headers={"content-type": JSON, **headers}
        )
        assert response.status_code == 401
    assert pieces_read == 0


async def test_a_refusal_is_written_in_the_media_type_that_was_asked_for(keyed: Api) -> None:
    for media_type in (JSON, GRAPHQL_JSON):
        for method, more in (("POST", {"json": {"query": "{ a }"}}), ("GET", {})):
            response = await keyed.http.request(
                method,
                "/graphql?query={__typename}",
                headers={"accept": media_type},
                **more,  # type: ignore[arg-type]
            )
            assert response.status_code == 401
            assert response.headers["content-type"] == f"{media_type}; charset=utf-8"
            assert response.headers["www-authenticate"] == 'Bearer realm="segmentql"'
            assert "x-request-id" in response.headers


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   "])
async def test_a_key_is_taken_whatever_the_case_of_its_scheme(
    keyed: Api, database: Database, scheme: str
) -> None:
    key = await make_key(database, "READER")
    response = await send_query(keyed, scheme + key.token, "{ __typename }")
    assert without_cost(response.json()) == {"data": {"__typename": "Query"}}


async def test_a_header_that_is_not_exactly_a_key_is_malformed(
    keyed: Api, database: Database
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
        response = await send_query(keyed, authorization, "{ __typename }")
        assert response.status_code == 401
        assert "must be" in response.json()["errors"][0]["message"]


async def test_a_get_needs_a_key_too(keyed: Api, database: Database) -> None:
    key = await make_key(database, "READER")
    answers = [
        await keyed.http.get("/graphql", params={"query": "{ __typename }"}, headers=headers)
        for headers in ({}, {"authorization": bearer(key.token)})
    ]
    assert [answer.status_code for answer in answers] == [401, 200]


async def test_who_has_a_key_still_gets_no_mutation_by_get(keyed: Api, database: Database) -> None:
    key = await make_key(database, "ADMIN")
    response = await keyed.http.get(
        "/graphql",
        params={"query": "mutation { createUser(input: {id: 7}) { user { id } } }"},
        headers={"authorization": bearer(key.token)},
    )
    assert response.status_code == 405


async def test_the_page_and_the_probes_are_open(keyed: Api) -> None:
    page = await keyed.http.get("/graphql", headers={"accept": "text/html"})
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (await keyed.http.get("/healthz")).status_code == 200
    assert (await keyed.http.get("/readyz")).status_code == 200


async def test_the_page_is_told_whether_a_key_is_needed(
    database: Database, storage: Storage
) -> None:
    async def nobody(_: bytes | None) -> Principal:
        raise Unauthenticated(AuthenticationFailure.MISSING)

    for authenticate, auth in ((nobody, "required"), (None, "off")):
        view = GraphQLView(
            GraphQLExecutor(make_schema(), LIMITS),
            database,
            storage,
            asyncio.Event(),
            authenticate=authenticate,
            rate_limiter=RateLimiter("redis://127.0.0.1:1", per_second=0),
            request_limits=RequestLimits(
                body_bytes=1024,
                requests_in_flight=1,
                request_seconds=1,
                response_bytes=1024,
                send_seconds=1,
            ),
            page=Path(__file__).parents[2] / "explorer" / "index.html",
        )
        transport = httpx.ASGITransport(app=RequestIds(view))
        async with httpx.AsyncClient(transport=transport, base_url="http://segmentql") as client:
            page = (await client.get("/graphql", headers={"accept": "text/html"})).text
        assert page.count(f'<meta name="segmentql-auth" content="{auth}" />') == 1
        assert page.count("segmentql-auth") == 1


async def test_metrics_with_a_token_of_their_own(guarded: Settings, settings: Settings) -> None:
    for base in (guarded, settings):
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
            right = await api.http.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})
            assert right.status_code == 200
            assert HELP in right.text


async def test_metrics_without_a_token_are_closed_where_keys_are_required(
    keyed: Api, api: Api, database: Database
) -> None:
    key = await make_key(database, "ADMIN")
    for headers in ({}, {"authorization": bearer(key.token)}):
        closed = await keyed.http.get("/metrics", headers=headers)
        assert closed.status_code == 403
        assert "SEGMENTQL_METRICS_TOKEN" in closed.text
        assert HELP not in closed.text
    assert HELP in (await api.http.get("/metrics")).text


async def test_what_a_role_does_not_allow_is_no_fault_of_ours(
    keyed: Api, database: Database
) -> None:
    key = await make_key(database, "READER")
    with capture_logs() as logged:
        await send_query(keyed, bearer(key.token), "{ apiKeys { nodes { id } } }")
    assert logged == []
    assert await query_data(keyed, key, "{ __typename }") == {"__typename": "Query"}


async def test_a_key_that_asks_too_often_is_told_when_to_come_again(
    guarded: Settings, database: Database, sql: Sql
) -> None:
    busy, other = await make_key(database, "READER"), await make_key(database, "READER")
    async with serving(guarded.model_copy(update={"rate_per_second": 5})) as api:
        answers = [await send_query(api, bearer(busy.token), "{ __typename }") for _ in range(50)]
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.headers["retry-after"] == "1"
        (error,) = refused.json()["errors"]
        assert error["extensions"] == {"code": "RATE_LIMITED", "limit": 5}
        assert (await send_query(api, bearer(other.token), "{ __typename }")).status_code == 200

        async def is_let_in() -> bool:
            return (await send_query(api, bearer(busy.token), "{ __typename }")).status_code == 200

        await until(is_let_in)
