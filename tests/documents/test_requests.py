"""Requests that name a stored document, and what the mode `trusted` rejects."""

from typing import Any

import pytest
from prometheus_client import REGISTRY

from segmentql.adapters.database import Database
from segmentql.document_ids import ALLOWED_ID
from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.cli.api_process import listening
from tests.conftest import Api, Sql, recorded_statements, serving
from tests.documents.requests import (
    CHANGES,
    CREATE,
    NO_USERS,
    UNKNOWN,
    USERS,
    codes,
    id_of,
    send,
    store,
)
from tests.graphql.websocket_client import opened

GRAPHQL_JSON = "application/graphql-response+json"
APQ = {"persistedQuery": {"version": 1, "sha256Hash": id_of(USERS).removeprefix("sha256:")}}


async def test_documents_by_post_and_get(database: Database, api: Api, trusted: Api) -> None:
    await store(database, USERS)
    for service in (api, trusted):
        assert await send(service, documentId=id_of(USERS)) == (200, NO_USERS)
        by_get = await service.http.get(
            "/graphql",
            params={"documentId": id_of(USERS), "variables": '{"first": 1}'},
            headers={"accept": GRAPHQL_JSON},
        )
        assert by_get.status_code == 200
        assert by_get.json()["data"] == NO_USERS["data"]


async def test_browser_gets_the_result_and_not_the_page(database: Database, api: Api) -> None:
    await store(database, USERS)
    response = await api.http.get(
        "/graphql", params={"documentId": id_of(USERS)}, headers={"accept": "text/html, */*"}
    )
    assert response.headers["content-type"].startswith("application/")
    assert response.json()["data"] == NO_USERS["data"]


async def test_cost_and_limits_apply(database: Database, trusted: Api, settings: Settings) -> None:
    await store(database, USERS)
    status, body = await send(
        trusted, GRAPHQL_JSON, documentId=id_of(USERS), variables={"first": 0}
    )
    assert (status, body["errors"][0]["extensions"]["code"]) == (200, "BAD_REQUEST")
    changed = settings.model_copy(update={"max_cost": 2})
    async with serving(changed) as strict:
        status, body = await send(strict, GRAPHQL_JSON, documentId=id_of(USERS))
    assert (status, codes(body)) == (400, ["LIMIT_EXCEEDED"])


async def test_operation_of_a_stored_document_is_selected(database: Database, trusted: Api) -> None:
    both = f"{USERS} {CREATE}"
    await store(database, both)
    assert await send(trusted, documentId=id_of(both), operationName="Users") == (200, NO_USERS)
    status, body = await send(trusted, GRAPHQL_JSON, documentId=id_of(both))
    assert (status, codes(body)) == (400, ["BAD_REQUEST"])


async def test_mutations_need_post(database: Database, trusted: Api, sql: Sql) -> None:
    await store(database, CREATE)
    response = await trusted.http.get("/graphql", params={"documentId": id_of(CREATE)})
    assert response.status_code == 405
    assert await sql.fetchval("SELECT count(*) FROM users") == 0
    status, body = await send(trusted, documentId=id_of(CREATE))
    assert (status, body) == (200, {"data": {"createUser": {"user": {"id": "1"}}}})


@pytest.mark.parametrize("mode", ["open", "trusted"])
@pytest.mark.parametrize(("accept", "status"), [("application/json", 200), (GRAPHQL_JSON, 400)])
async def test_unknown_id_is_rejected(
    api: Api, trusted: Api, mode: str, accept: str, status: int
) -> None:
    service = api if mode == "open" else trusted
    assert await send(service, accept, documentId=id_of(UNKNOWN)) == (
        status,
        {
            "errors": [
                {
                    "message": "No stored document has this documentId. Store the client's"
                    " documents with `segmentql documents push FILE`.",
                    "extensions": {"code": "DOCUMENT_NOT_FOUND"},
                }
            ]
        },
    )


@pytest.mark.parametrize(
    "document_id",
    [
        "",
        7,
        ["sha256:" + "0" * 64],
        "0" * 64,
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "A" * 64,
        "md5:" + "0" * 32,
        "sha256:" + "0" * 64 + "\n",
    ],
)
async def test_invalid_id_is_rejected(api: Api, document_id: Any) -> None:
    status, body = await send(api, documentId=document_id)
    assert status == 400
    assert body["errors"] == [
        {
            "message": f"`documentId` must be {ALLOWED_ID}.",
            "extensions": {
                "code": "BAD_REQUEST",
                "argument": "documentId",
                "allowed": ALLOWED_ID,
            },
        }
    ]


async def test_text_and_id_must_match(api: Api, trusted: Api, sql: Sql) -> None:
    """A matching id needs no stored document if the server accepts texts."""
    assert await send(api, query=USERS, documentId=id_of(USERS)) == (200, NO_USERS)
    for service in (api, trusted):
        status, body = await send(service, query=CREATE, documentId=id_of(USERS))
        assert (status, codes(body)) == (400, ["BAD_REQUEST"])
        assert body["errors"][0]["message"] == ("`documentId` is not the SHA-256 hash of `query`.")
    assert await sql.fetchval("SELECT count(*) FROM users") == 0


async def test_trusted_mode_rejects_texts(database: Database, trusted: Api, sql: Sql) -> None:
    """Also those of stored documents, with and without their id."""
    await store(database, CREATE)
    for parameters in (
        {"query": CREATE},
        {"query": CREATE, "documentId": id_of(CREATE)},
        {"query": CREATE, "extensions": APQ},
        {"query": "{ __schema { types { name } } }"},
    ):
        status, body = await send(trusted, GRAPHQL_JSON, **parameters)
        assert (status, codes(body)) == (400, ["DOCUMENT_ID_REQUIRED"])
        status, body = await send(trusted, **parameters)
        assert (status, codes(body)) == (200, ["DOCUMENT_ID_REQUIRED"])
    by_get = await trusted.http.get("/graphql", params={"query": UNKNOWN})
    assert codes(by_get.json()) == ["DOCUMENT_ID_REQUIRED"]
    assert await sql.fetchval("SELECT count(*) FROM users") == 0


async def test_automatic_persisted_query_gets_the_error_for_a_fallback(
    api: Api, trusted: Api
) -> None:
    expected = {
        "errors": [
            {
                "message": "PersistedQueryNotSupported",
                "extensions": {"code": "PERSISTED_QUERY_NOT_SUPPORTED"},
            }
        ]
    }
    for service in (api, trusted):
        assert await send(service, extensions=APQ) == (200, expected)
        assert await send(service, GRAPHQL_JSON, extensions=APQ) == (400, expected)
    assert await send(api, query=USERS, extensions=APQ) == (200, NO_USERS)  # the fallback


@pytest.mark.parametrize(
    "parameters",
    [{}, {"query": ""}, {"query": None, "extensions": {"persistedQuery": None}}, {"query": 7}],
)
async def test_request_without_a_document_is_rejected(
    api: Api, trusted: Api, parameters: dict[str, Any]
) -> None:
    for service in (api, trusted):
        status, body = await send(service, **parameters)
        assert (status, codes(body)) == (400, ["BAD_REQUEST"])
        assert body["errors"][0]["message"] == (
            "The request must have `query`, a non-empty string, or `documentId`."
        )


async def test_event_stream_takes_ids_and_no_texts(database: Database, trusted: Api) -> None:
    await store(database, USERS)
    stream = {"accept": "text/event-stream"}
    texts = [
        (await trusted.http.post("/graphql", json=parameters, headers=stream)).text
        for parameters in ({"documentId": id_of(USERS)}, {"query": USERS}, {"query": CHANGES})
    ]
    assert '"data":{"users":{"nodes":[]}}' in texts[0]
    assert "DOCUMENT_ID_REQUIRED" in texts[1]
    assert "DOCUMENT_ID_REQUIRED" in texts[2]


async def test_web_socket_takes_ids_and_no_texts(
    database: Database, trusted: Api, sql: Sql
) -> None:
    await store(database, CHANGES)
    await store(database, CREATE)
    transport: Any = trusted.http._transport
    async with (
        listening(transport.app) as address,
        opened(f"{address}/graphql".replace("http", "ws")) as socket,
    ):
        await socket.init()
        await socket.subscribe(CHANGES)
        (rejected,) = await socket.messages_until_end()
        payload = {"documentId": id_of(UNKNOWN)}
        await socket.send({"type": "subscribe", "id": "2", "payload": payload})
        (unknown,) = await socket.messages_until_end()
        payload = {"documentId": id_of(CHANGES)}
        await socket.send({"type": "subscribe", "id": "3", "payload": payload})
        assert (await socket.receive())["type"] == "next"
    assert [message["payload"][0]["extensions"]["code"] for message in (rejected, unknown)] == [
        "DOCUMENT_ID_REQUIRED",
        "DOCUMENT_NOT_FOUND",
    ]


async def test_database_away_is_reported(servers: LocalServers, sql: Sql) -> None:
    """The client is not at fault, so it should retry the request."""
    async with serving(servers.settings("nowhere")) as api:
        for accept in ("application/json", GRAPHQL_JSON):
            response = await api.http.post(
                "/graphql", json={"documentId": id_of(USERS)}, headers={"accept": accept}
            )
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
            assert codes(response.json()) == ["UNAVAILABLE"]
            assert response.json()["errors"][0]["message"] == (
                "The database is unavailable; nothing was changed."
            )


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"query": USERS}, "DOCUMENT_ID_REQUIRED"),
        ({"documentId": id_of(UNKNOWN)}, "DOCUMENT_NOT_FOUND"),
        ({"extensions": APQ}, "PERSISTED_QUERY_NOT_SUPPORTED"),
    ],
)
async def test_rejections_are_counted_by_code(
    trusted: Api, parameters: dict[str, Any], code: str
) -> None:
    def count() -> float:
        return REGISTRY.get_sample_value("segmentql_errors_total", {"code": code}) or 0

    before = count()
    await send(trusted, **parameters)
    assert count() == before + 1


async def test_api_key_is_checked_first(auth_settings: Settings, sql: Sql) -> None:
    changed = auth_settings.model_copy(update={"documents": "trusted", "graphiql": "off"})
    async with serving(changed) as api:
        with recorded_statements() as statements:
            status, body = await send(api, GRAPHQL_JSON, documentId=id_of(USERS))
    assert (status, codes(body)) == (401, ["UNAUTHENTICATED"])
    assert not any("FROM documents" in statement for statement in statements)
