"""A request and its statements are one trace, which has no values."""

import asyncio
from typing import Any

import pytest

from segmentql.settings import Settings, open_telemetry_variables
from segmentql.tracing import setup
from tests.conftest import Api, Sql, serving
from tests.operations import make_segments
from tests.tracing.collector import Collector

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
SERVER, CLIENT = 2, 3
USER = "query Which($id: ID!) { user(id: $id) { id segments { slug } } }"


async def send(api: Api, query: str, headers: dict[str, str], **variables: Any) -> Any:
    body = {"query": query, "variables": variables}
    return await api.http.post("/graphql", json=body, headers=headers)


async def test_request_joins_the_trace_of_its_client(traced_api: Api, collector: Collector) -> None:
    await make_segments(traced_api, "beta")
    headers = {**TRACEPARENT, "tracestate": "vendor=1", "x-request-id": "req-1"}
    response = await send(traced_api, USER, headers, id="7")
    assert response.headers["x-request-id"] == "req-1"

    (span,) = await collector.wait_for("query Which")
    assert (span.trace_id, span.parent_id, span.kind) == (TRACE, PARENT, SERVER)
    assert span.service == "tests"
    assert not span.is_error
    assert {**span.attributes, "segmentql.cost": 1} == {
        "http.request.method": "POST",
        "http.route": "/graphql",
        "url.path": "/graphql",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "graphql.operation.type": "query",
        "graphql.operation.name": "Which",
        "segmentql.outcome": "done",
        "segmentql.cost": 1,
        "segmentql.request_id": "req-1",
    }
    statements = collector.children(span)
    assert statements
    for statement in statements:
        assert statement.kind == CLIENT
        assert statement.name == f"SELECT {statement.attributes['segmentql.loader']}"
        assert statement.attributes["db.system.name"] == "postgresql"
        assert statement.attributes["db.namespace"] == "run"
        assert statement.attributes["db.operation.name"] == "SELECT"
        assert statement.attributes["db.query.text"].startswith("SELECT ")
        assert statement.attributes["segmentql.batch.keys"] == 1
        assert 0 < statement.duration_ns < span.duration_ns


async def test_mutation_has_its_statements_and_its_commit(
    traced_api: Api, collector: Collector
) -> None:
    create = 'mutation Make { createSegment(input: {slug: "beta"}) { segment { id } } }'
    await send(traced_api, create, {})
    (span,) = await collector.wait_for("mutation Make")
    names = [child.name for child in collector.children(span)]
    assert "INSERT" in names
    assert names.count("COMMIT") == 1


async def test_concurrent_requests_share_a_statement_that_links_to_each(
    traced_api: Api, collector: Collector
) -> None:
    query = "query One { user(id: 1) { createdAt } }"
    await asyncio.gather(*(send(traced_api, query, {}) for _ in range(3)))
    requests = {span.id: span for span in await collector.wait_for("query One", count=3)}
    shared = [
        span
        for span in collector.spans
        if span.parent_id in requests and {span.parent_id, *span.links} == {*requests}
    ]
    assert len(shared) == 1
    assert len(shared[0].links) == 2


async def test_no_value_of_a_request_is_in_its_trace(traced_api: Api, collector: Collector) -> None:
    secrets = {"user-secret-1", "beta-secret-2", "sgql_secret3_token", "query-secret-4"}
    key = {"authorization": "Bearer sgql_secret3_token"}
    create = "mutation Make($key: String!) { createUser(input: {key: $key}) { user { id } } }"
    for _ in range(2):  # the second one fails in the database, with the key in its error
        await send(traced_api, create, key, key="user-secret-1")
    slug = "query Find($slug: String!) { segment(slug: $slug) { name } }"
    await send(traced_api, slug, key, slug="beta-secret-2")
    by_get = 'query Get { node(id: "query-secret-4") { id } }'
    await traced_api.http.get("/graphql", params={"query": by_get})
    await traced_api.http.post(
        "/ofrep/v1/evaluate/flags/beta-secret-2", json={"context": {"targetingKey": "7"}}
    )
    await collector.wait_for("POST /ofrep/v1/evaluate/flags/{key}")
    for name in ("mutation Make", "query Find", "query Get"):
        await collector.wait_for(name)
    raw = b"".join(collector.bodies)
    assert [secret for secret in secrets if secret.encode() in raw] == []


async def test_failed_requests_have_the_code_of_their_error(
    traced_api: Api, collector: Collector
) -> None:
    await send(traced_api, "query Bad { nothing }", {})
    (span,) = await collector.wait_for("POST /graphql")
    assert span.attributes["segmentql.outcome"] == "rejected"
    assert span.attributes["error.type"] == "BAD_REQUEST"
    assert not span.is_error  # the client caused it


async def test_trace_that_its_client_does_not_sample_is_not_sent(
    traced_api: Api, collector: Collector
) -> None:
    not_sampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    assert (await send(traced_api, USER, not_sampled, id="7")).status_code == 200
    await send(traced_api, "query Last { user(id: 1) { id } }", {})
    await collector.wait_for("query Last")
    assert [span for span in collector.spans if span.trace_id == TRACE] == []


async def test_sampler_of_the_environment_applies(
    collector: Collector, settings: Settings, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    setup.start(open_telemetry_variables(), service_name="tests")
    async with serving(settings) as api:
        assert (await send(api, USER, TRACEPARENT, id="7")).status_code == 200
    assert collector.bodies == []


async def test_log_line_of_a_request_has_the_id_of_its_trace(
    tracing: None, settings: Settings, sql: Sql, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    changed = settings.model_copy(update={"log_format": "json"})
    async with serving(changed) as api:
        await send(api, USER, TRACEPARENT, id="7")
    assert f'"trace_id":"{TRACE}"'.encode() in capsysbinary.readouterr().err


async def test_application_without_tracing_ignores_the_trace_of_its_client(
    api: Api, collector: Collector
) -> None:
    assert (await send(api, USER, TRACEPARENT, id="7")).status_code == 200
    assert collector.bodies == []
