"""The endpoints have the keys, limits, headers and CORS of `/graphql`."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from segmentql.adapters.database import Database
from segmentql.local import LocalServers
from segmentql.settings import Settings
from segmentql.tables import Role
from tests.conftest import Api, Sql, make_database, recorded_statements, serving, until
from tests.graphql.test_deadlines import slow_body
from tests.graphql.test_openness import ALLOWED_ORIGIN, OTHER_ORIGIN, SAFE
from tests.keys.clients import UNKNOWN, bearer, make_key, revoke
from tests.ofrep.client import BY_HAND, FLAGS, body_of, evaluate, store_memberships

PATHS: tuple[tuple[str, dict[str, str]], ...] = ((f"{FLAGS}/A", {"key": "A"}), (FLAGS, {}))


@pytest.fixture
async def small_api(settings: Settings, sql: Sql) -> AsyncIterator[Api]:
    """Run a service with limits that a test can reach."""
    changes = {
        "max_requests_in_flight": 2,
        "max_body_bytes": 2000,
        "max_response_bytes": 1024,
    }
    async with serving(settings.model_copy(update=changes)) as api:
        yield api


@pytest.mark.parametrize("role", list(Role))
async def test_each_role_may_evaluate(
    auth_api: Api, api: Api, database: Database, sql: Sql, role: Role
) -> None:
    await store_memberships(api, sql)
    key = await make_key(database, role)
    for headers in ({"authorization": bearer(key.token)}, {"x-api-key": key.token}):
        assert (await evaluate(auth_api, "A", "1", **headers)).json() == BY_HAND
        assert (await evaluate(auth_api, None, "1", **headers)).json()["flags"][0] == BY_HAND


async def test_evaluation_is_one_statement_beside_that_of_the_key(
    auth_api: Api, api: Api, database: Database, sql: Sql
) -> None:
    await store_memberships(api, sql)
    key = await make_key(database, "EVALUATOR")
    for slug in ("A", None):
        with recorded_statements() as statements:
            await evaluate(auth_api, slug, "1", authorization=bearer(key.token))
        assert len([text for text in statements if "api_keys" not in text]) == 1


async def test_request_without_a_valid_key_is_rejected(
    auth_api: Api, database: Database, sql: Sql
) -> None:
    key, revoked = await make_key(database, "EVALUATOR"), await make_key(database, "EVALUATOR")
    await revoke(database, revoked)
    cases: tuple[dict[str, str], ...] = (
        {},
        {"x-api-key": ""},
        {"x-api-key": bearer(key.token)},
        {"x-api-key": key.with_wrong_secret},
        {"x-api-key": UNKNOWN},
        {"x-api-key": revoked.token},
        {"authorization": bearer(revoked.token)},
        {"authorization": key.token},
        {"authorization": bearer(UNKNOWN), "x-api-key": key.token},  # the first has precedence
    )
    for path, names in PATHS:
        for headers in cases:
            response = await auth_api.http.post(path, content=b"not read", headers=headers)
            body = response.json()
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == 'Bearer realm="segmentql"'
            assert body.pop("errorDetails")
            assert body == {**names, "errorCode": "GENERAL"}


async def test_message_about_a_malformed_key_names_both_headers(auth_api: Api) -> None:
    cases: tuple[dict[str, str], ...] = ({}, {"x-api-key": "sgql_malformed"})
    for path, _ in PATHS:
        for headers in cases:
            response = await auth_api.http.post(path, content=b"{}", headers=headers)
            details = response.json()["errorDetails"]
            assert "Authorization: Bearer sgql_<id>_<secret> or X-API-Key: sgql_<id>_" in details


async def test_response_repeats_only_slugs_that_a_segment_can_have(api: Api, sql: Sql) -> None:
    cases = (
        ("x" * 255, "x" * 255),
        ("no slug", "no slug"),
        ("x" * 256, f"{'x' * 40}... (256 characters)"),
        ("x" * 50_000, f"{'x' * 40}... (50000 characters)"),
    )
    for slug, key in cases:
        response = await evaluate(api, slug, "1")
        assert response.status_code == 404
        assert (response.json()["key"], response.json()["errorCode"]) == (key, "FLAG_NOT_FOUND")
        unread = await api.http.post(f"{FLAGS}/{slug}", content=b"not read")
        assert (unread.status_code, unread.json()["key"]) == (415, key)


async def test_host_of_another_machine_is_rejected_without_keys(api: Api, sql: Sql) -> None:
    await store_memberships(api, sql)
    assert (await evaluate(api, "A", "1", host="localhost:8080")).status_code == 200
    for slug in ("A", None):
        response = await evaluate(api, slug, "1", host="evil.example")
        assert (response.status_code, response.json()["errorCode"]) == (403, "GENERAL")


async def test_rate_limit_pauses_no_provider_of_a_server(
    auth_settings: Settings, api: Api, database: Database, sql: Sql
) -> None:
    """A provider of a server pauses all flags for `Retry-After`. A browser has its last values."""
    await store_memberships(api, sql)
    key = await make_key(database, "EVALUATOR")
    headers = {"x-api-key": key.token}
    async with serving(auth_settings.model_copy(update={"rate_per_second": 5})) as limited_api:
        for slug, retry_after in (("A", None), (None, "1")):
            responses = await asyncio.gather(
                *(evaluate(limited_api, slug, "1", **headers) for _ in range(50))
            )
            limited = [response for response in responses if response.status_code != 200]
            assert {response.status_code for response in limited} == {429}
            assert limited[0].headers.get("retry-after") == retry_after
            assert limited[0].json()["errorCode"] == "GENERAL"
            assert "5 requests per second" in limited[0].json()["errorDetails"]

        async def is_accepted_again() -> bool:
            return bool((await evaluate(limited_api, "A", "1", **headers)).json() == BY_HAND)

        await until(is_accepted_again)


async def test_requests_in_flight_are_limited_together_with_graphql(small_api: Api) -> None:
    end = asyncio.Event()
    slow = [
        asyncio.create_task(slow_body(small_api, end=end, path=path))
        for path in ("/graphql", f"{FLAGS}/A")
    ]
    await asyncio.sleep(0)
    for slug in ("A", None):
        rejected = await evaluate(small_api, slug, "1")
        assert rejected.status_code == (503 if slug is None else 500)
        assert rejected.headers["retry-after"] == "1"
        assert rejected.json().get("errorCode") == (None if slug is None else "GENERAL")
        assert "already handles 2 requests" in rejected.json()["errorDetails"]
    assert (await small_api.http.post("/graphql", json={})).status_code == 503
    end.set()
    assert [status for status, _, _ in await asyncio.gather(*slow)] == [200, 400]


async def test_body_that_cannot_be_read_is_a_parse_error(small_api: Api) -> None:
    json = {"content-type": "application/json"}
    cases = (
        (415, {"content-type": "text/plain"}, b"{}"),
        (415, {**json, "content-encoding": "gzip"}, b"{}"),
        (413, json, b" " * 2001),
    )
    for path, names in PATHS:
        for status, headers, content in cases:
            response = await small_api.http.post(path, content=content, headers=headers)
            body = response.json()
            assert response.status_code == status
            assert body.pop("errorDetails")
            assert body == {**names, "errorCode": "PARSE_ERROR"}


async def test_response_beyond_the_limit_is_a_fault(small_api: Api, sql: Sql) -> None:
    await sql.execute(
        "INSERT INTO segments (slug, created_at, updated_at)"
        " SELECT 'S' || n, now(), now() FROM generate_series(1, 20) AS n"
    )
    response = await evaluate(small_api, None, "1")
    assert (response.status_code, list(response.json())) == (500, ["errorDetails"])
    assert "more than the limit of 1024" in response.json()["errorDetails"]


async def test_responses_have_the_request_id_and_safe_headers(api: Api, sql: Sql) -> None:
    await store_memberships(api, sql)
    for slug, user in (("A", "1"), (None, "1"), ("NOPE", "1"), (None, "")):
        response = await evaluate(api, slug, user, **{"x-request-id": "mine"})
        assert response.headers["x-request-id"] == "mine"
        assert {name: response.headers[name] for name in SAFE} == SAFE


async def test_pages_of_listed_origins_can_read_the_entity_tag(
    settings: Settings, api: Api, sql: Sql
) -> None:
    await store_memberships(api, sql)
    preflight = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type, if-none-match, x-api-key",
    }
    changes = {"cors_origins": (ALLOWED_ORIGIN,)}
    async with serving(settings.model_copy(update=changes)) as cors_api:
        for origin, status in ((ALLOWED_ORIGIN, 200), (OTHER_ORIGIN, 400)):
            options = await cors_api.http.options(FLAGS, headers={"origin": origin, **preflight})
            assert options.status_code == status
        response = await evaluate(cors_api, None, "1", origin=ALLOWED_ORIGIN)
        assert response.headers["access-control-allow-origin"] == ALLOWED_ORIGIN
        assert "etag" in response.headers["access-control-expose-headers"]
        assert response.headers["etag"]
        limited = await cors_api.http.post(FLAGS, content=b"", headers={"origin": ALLOWED_ORIGIN})
        assert limited.headers["access-control-allow-origin"] == ALLOWED_ORIGIN
    assert (await api.http.options(FLAGS, headers=preflight)).status_code == 405


async def test_replica_is_read_unless_the_primary_is_requested(
    servers: LocalServers, settings: Settings, api: Api, sql: Sql
) -> None:
    """A database without replication stands for a replica with infinite lag."""
    await store_memberships(api, sql)
    await make_database(servers, "lagging-flags", template="segmentql")
    replica = servers.settings("lagging-flags").database_url
    try:
        async with serving(
            settings.model_copy(update={"database_read_url": replica, "replica_max_lag_seconds": 0})
        ) as lagging:
            assert (await lagging.http.post(FLAGS, json=body_of("1"))).json()["flags"] == []
            assert (await evaluate(lagging, "A", "1")).status_code == 404
            primary = await evaluate(lagging, "A", "1", **{"segmentql-read": "primary"})
            assert primary.json() == BY_HAND
    finally:
        await sql.execute('DROP DATABASE "lagging-flags"')
