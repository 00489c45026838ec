"""Requests to the subgraph have the authentication, limits and errors of `/graphql`."""

import hashlib

import pytest

from graphql import ObjectTypeDefinitionNode, build_schema, parse, print_ast
from segmentql.adapters.database import Database
from segmentql.settings import Settings
from segmentql.subgraph import subgraph_sdl
from tests.conftest import Api, Sql, serving
from tests.federation.conftest import SubgraphApi
from tests.keys.clients import bearer, make_key

SERVICE = "{ _service { sdl } }"
DEFINITIONS = """
scalar _FieldSet scalar link__Import
directive @link(url: String!, import: [link__Import]) repeatable on SCHEMA
directive @key(fields: _FieldSet!) repeatable on OBJECT
directive @shareable on OBJECT
"""


async def test_sdl_is_a_schema_without_the_fields_of_federation(subgraph: SubgraphApi) -> None:
    sdl = (await subgraph(SERVICE))["_service"]["sdl"]
    assert sdl == subgraph_sdl()
    schema = build_schema(DEFINITIONS + sdl)
    assert schema.query_type
    assert set(schema.query_type.fields) == {
        *("user", "userByKey", "users", "usersById", "usersByKey", "segment", "segments"),
    }
    assert schema.mutation_type is None
    directives = {
        node.name.value: [print_ast(directive) for directive in node.directives or ()]
        for node in parse(sdl).definitions
        if isinstance(node, ObjectTypeDefinitionNode) and node.directives
    }
    assert directives == {
        "User": ['@key(fields: "id")'],
        "Segment": ['@key(fields: "slug")'],
        "PageInfo": ["@shareable"],
    }


async def test_path_does_not_exist_by_default(api: Api) -> None:
    response = await api.http.post("/federation", json={"query": SERVICE})
    assert response.status_code == 404


async def test_schema_of_the_api_has_no_entities(subgraph: SubgraphApi) -> None:
    response = await subgraph.http.post("/graphql", json={"query": SERVICE})
    assert "Cannot query field '_service'" in response.json()["errors"][0]["message"]
    error = await subgraph.error("{ viewer { role } }")
    assert "Cannot query field 'viewer'" in error["message"]


@pytest.mark.parametrize("path", ["/federation", "/federation/"])
async def test_request_needs_a_key_with_a_role_that_may_query(
    settings: Settings, database: Database, sql: Sql, path: str
) -> None:
    changes = {"federation": "on", "auth": "required"}
    async with serving(settings.model_copy(update=changes)) as api:
        response = await api.http.post(path, json={"query": SERVICE})
        assert response.status_code == 401
        assert response.json()["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}
        for role, code in {"EVALUATOR": "FORBIDDEN", "READER": None}.items():
            headers = {"authorization": bearer((await make_key(database, role)).token)}
            query = "{ _service { sdl } _entities(representations: []) { __typename } }"
            response = await api.http.post(path, json={"query": query}, headers=headers)
            codes = {error["extensions"]["code"] for error in response.json().get("errors", [])}
            assert codes == ({code} if code else set())


async def test_requests_without_graphql_are_rejected(subgraph: SubgraphApi) -> None:
    assert (await subgraph.http.put("/federation", json={})).status_code == 405
    form = await subgraph.http.post("/federation", data={"query": SERVICE})
    assert form.status_code == 415
    page = await subgraph.http.get("/federation", headers={"accept": "text/html"})
    assert page.status_code == 406
    stream = await subgraph.http.get(
        "/federation", params={"query": SERVICE}, headers={"accept": "text/event-stream"}
    )
    assert stream.status_code == 406
    read = await subgraph.http.get("/federation", params={"query": SERVICE})
    assert read.json()["data"]["_service"]["sdl"] == subgraph_sdl()


async def test_gateway_may_send_texts_although_documents_are_trusted(
    settings: Settings, sql: Sql
) -> None:
    changes = {"federation": "on", "documents": "trusted", "graphiql": "off"}
    async with serving(settings.model_copy(update=changes)) as api:
        rejected = (await api.http.post("/graphql", json={"query": "{ __typename }"})).json()
        assert rejected["errors"][0]["extensions"]["code"] == "DOCUMENT_ID_REQUIRED"
        executed = (await api.http.post("/federation", json={"query": SERVICE})).json()
        assert executed["data"]["_service"]["sdl"] == subgraph_sdl()
        document_id = f"sha256:{hashlib.sha256(SERVICE.encode()).hexdigest()}"
        unknown = (await api.http.post("/federation", json={"documentId": document_id})).json()
        assert unknown["errors"][0]["extensions"]["code"] == "DOCUMENT_NOT_FOUND"


async def test_schema_is_sent_to_gateways_with_introspection_off(
    settings: Settings, subgraph: SubgraphApi
) -> None:
    query = "{ _service { sdl } }"
    sdl = (await subgraph.body(query))["data"]["_service"]["sdl"]
    assert 'type User @key(fields: "id")' in sdl
    changes = {"federation": "on", "introspection": "off"}
    async with serving(settings.model_copy(update=changes)) as api:
        closed = SubgraphApi(api.http)
        assert await closed.body(query) == {"data": {"_service": {"sdl": sdl}}}
        rejected = await closed.body("{ __schema { queryType { name } } }")
        assert "introspection has been disabled" in str(rejected["errors"])
