"""Faults are masked and counted and carry the request's id.

`/metrics` and the probes respond despite faults.
"""

import re
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
from structlog.testing import capture_logs

from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.back_dating import HOUR, NOON, all_rows, delete_segment_at, insert_membership
from tests.conftest import Api, Sql, serving, suspended, without_cost
from tests.operations import UPDATE_USER_SEGMENTS, make_segments, update_user_segments
from tests.readiness import expect_readiness


@asynccontextmanager
async def renamed_table(sql: Sql, table: str) -> AsyncIterator[list[MutableMapping[str, Any]]]:
    """Rename a table in the block, which causes a real fault, and collect the log."""
    await sql.execute(f"ALTER TABLE {table} RENAME TO lost")
    try:
        with capture_logs() as logged:
            yield logged
    finally:
        await sql.execute(f"ALTER TABLE lost RENAME TO {table}")


async def send(api: Api, query: str, request_id: str, **variables: Any) -> Any:
    response = await api.http.post(
        "/graphql",
        content=orjson.dumps({"query": query, "variables": variables}),
        headers={"content-type": "application/json", "x-request-id": request_id},
    )
    assert response.status_code == 200
    return without_cost(response.json())


async def metrics(api: Api) -> dict[str, float]:
    """Return every sample of `/metrics`, by name and labels."""
    response = await api.http.get("/metrics")
    assert response.status_code == 200
    return {
        name: float(value)
        for name, value in re.findall(r"^([^# ][^ ]*(?:\{.*\})?) (\S+)$", response.text, re.M)
    }


async def test_query_fault_is_masked_and_carries_the_request_id(api: Api, sql: Sql) -> None:
    async with renamed_table(sql, "users") as logged:
        body = await send(api, "{ a: user(id: 7) { id } b: __typename }", "my-request")
    assert body == {
        "data": {"a": None, "b": "Query"},
        "errors": [
            {
                "message": "An internal error occurred.",
                "locations": [{"line": 1, "column": 3}],
                "path": ["a"],
                "extensions": {"code": "INTERNAL", "requestId": "my-request"},
            }
        ],
    }
    (line,) = [line for line in logged if line["log_level"] == "error"]
    assert (line["request_id"], line["path"]) == ("my-request", ["a"])
    assert "users" in str(line["exc_info"])
    assert await api("{ user(id: 7) { id } }") == {"user": None}


async def test_mutation_fault_is_masked_and_changes_nothing(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    before = await all_rows(sql)
    async with renamed_table(sql, "exclusions"):
        body = await send(
            api, UPDATE_USER_SEGMENTS, "my-request", input={"userId": "7", "add": ["A"]}
        )
    assert body["data"] == {"updateUserSegments": None}
    (error,) = body["errors"]
    assert error["message"] == "An internal error occurred."
    assert error["extensions"] == {"code": "INTERNAL", "requestId": "my-request"}
    assert await all_rows(sql) == before


async def test_fault_below_a_list_nulls_only_its_own_field(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"])
    async with renamed_table(sql, "exclusions"):
        body = await send(
            api,
            """{ user(id: 7) { isIn(slug: "A") isExcluded(slug: "A") }
            segment(slug: "A") { memberCount } }""",
            "my-request",
        )
    assert body["data"] == {"user": None, "segment": {"memberCount": 1}}
    assert [error["path"] for error in body["errors"]] == [["user", "isExcluded"]]


async def test_faults_are_counted_by_code(api: Api, sql: Sql) -> None:
    name = 'segmentql_errors_total{code="%s"}'
    before = await metrics(api)
    async with renamed_table(sql, "users"):
        await api.body("{ user(id: 7) { id } }")
    await api.body("{ user(id: 0) { id } }")
    await api.body("{ users(first: 101) { nodes { id } } }")
    after = await metrics(api)
    for code in ("INTERNAL", "BAD_REQUEST", "LIMIT_EXCEEDED"):
        assert after[name % code] - before.get(name % code, 0) == 1


async def test_requests_are_counted_by_operation_and_outcome(api: Api, sql: Sql) -> None:
    before = await metrics(api)
    await api.body("query Counted { users { nodes { id } } }")
    await api.body("query Counted { users { nodes { id } } }")
    await api.body("query Counted { user(id: 0) { id } }")
    await api.body("query Counted($id: ID!) { user(id: $id) { id } }")
    await api.body("{ usersById(ids: []) { id } }")
    await api.body("{ nope }")
    after = await metrics(api)

    def added(operation: str, outcome: str) -> float:
        name = f'segmentql_requests_total{{operation="{operation}",outcome="{outcome}"}}'
        return after.get(name, 0) - before.get(name, 0)

    assert added("Counted", "done") == 2
    assert added("Counted", "failed") == 1
    assert added("Counted", "rejected") == 1
    assert added("usersById", "done") == 1
    assert added("invalid", "rejected") == 1
    durations = 'segmentql_request_duration_seconds_count{operation="Counted"}'
    assert after[durations] - before.get(durations, 0) == 4
    assert after["segmentql_requests_in_flight"] == 0


async def test_client_operation_names_do_not_add_metric_series(
    settings: Settings,
) -> None:
    async with serving(settings) as api:
        for number in range(250):
            await api(f"query Name{number} {{ __typename }}")
        await api(f"query Long{'g' * 200} {{ __typename }}")
        samples = await metrics(api)
    assert not any("Long" in name for name in samples)
    names = {name for name in samples if 'operation="Name' in name}
    requests = {name for name in names if name.startswith("segmentql_requests_total")}
    assert len(requests) == 200
    assert samples['segmentql_requests_total{operation="other",outcome="done"}'] >= 50


async def test_unrecorded_leaves_are_counted_by_cause(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "GONE")
    ttl, deleted = [
        f'segmentql_memberships_due{{cause="{cause}"}}' for cause in ("TTL", "SEGMENT_DELETED")
    ]
    none = await metrics(api)
    assert (none[ttl], none[deleted]) == (0, 0)
    for user_id in (1, 2):
        await insert_membership(sql, user_id, "A", expires_at=NOON + HOUR)
    for user_id in (1, 2, 3):
        await insert_membership(sql, user_id, "GONE")
    await update_user_segments(api, 4, add=["A"], ttlSeconds=3600)
    await delete_segment_at(sql, "GONE", NOON + HOUR)
    due = await metrics(api)
    assert (due[ttl], due[deleted]) == (2, 3)


async def test_metrics_without_database_values_are_served_in_an_outage(
    servers: LocalServers, sql: Sql
) -> None:
    async with serving(servers.settings("nowhere")) as api:
        names = {name.partition("{")[0] for name in await metrics(api)}
    assert "segmentql_requests_in_flight" in names
    assert "segmentql_memberships_due" not in names


async def test_process_is_live_without_its_dependencies(
    servers: LocalServers, api: Api, sql: Sql
) -> None:
    async with serving(servers.settings("nowhere")) as settings_without_server:
        for running in (api, settings_without_server):
            response = await running.http.get("/healthz")
            assert (response.status_code, response.json()) == (200, {"status": "ok"})


def ready(settings: Settings, **changes: str) -> dict[str, str]:
    """Return the body of a response of `/readyz`."""
    replica = {"replica": "ok"} if settings.database_read_url else {}
    return {"database": "ok", "redis": "ok", "store": "ok", **replica, **changes}


async def test_service_is_ready_with_the_database(api: Api, settings: Settings) -> None:
    await expect_readiness(api, 200, ready(settings))


async def test_service_is_not_ready_without_the_database(servers: LocalServers, sql: Sql) -> None:
    async with serving(servers.settings("nowhere")) as api:
        await expect_readiness(api, 503, {"database": "unavailable", "redis": "ok", "store": "ok"})
        error = await api.error("{ user(id: 7) { id } }")
    assert error["extensions"] == {"code": "UNAVAILABLE"}
    assert "nowhere" not in error["message"]


async def test_service_without_redis_is_ready_but_degraded(settings: Settings, sql: Sql) -> None:
    settings_without_server = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    async with serving(settings_without_server) as api:
        await expect_readiness(api, 200, ready(settings, redis="degraded"))
        await make_segments(api, "A")
        payload = await update_user_segments(api, 7, add=["A"], ttlSeconds=1)
    assert payload["errors"] == []


async def test_service_without_the_store_is_ready_but_degraded(
    servers: LocalServers, settings: Settings, sql: Sql
) -> None:
    """The address accepts no connection, or accepts one and never responds."""
    degraded = ready(settings, store="degraded")
    settings_without_server = settings.model_copy(update={"s3_endpoint_url": "http://127.0.0.1:1"})
    async with serving(settings_without_server) as api:
        await expect_readiness(api, 200, degraded)
        await make_segments(api, "A")
    async with serving(settings) as api:
        with suspended(servers.store):
            await expect_readiness(api, 200, degraded)
        await expect_readiness(api, 200, ready(settings))


async def test_unknown_paths_are_not_found(api: Api) -> None:
    for path in ("/nowhere", "/nowhere/", "/graphql/x", "/graphql//", "/static/nowhere/"):
        assert (await api.http.get(path)).status_code == 404
