"""`node` returns each type that implements `Node`, and nothing that the caller may not see."""

from typing import Any

import pytest

from graphql import GraphQLInterfaceType, parse
from segmentql.adapters.database import Database
from segmentql.graphql.context import Context
from segmentql.graphql.execution.compiler import compile_operation
from tests.conftest import Api, Sql
from tests.graphql.executor_helpers import (
    COMPILING_EXECUTOR,
    CORE,
    PLAIN_EXECUTOR,
    comparable_response,
    execute,
)
from tests.keys.clients import bearer, make_key, send_query

NODES = {
    "1": "User",
    "seg_1": "Segment",
    "rol_1": "Rollout",
    "rep_1": "Report",
    "imp_1": "Import",
    "exp_1": "Export",
}
SELECTION = """ { __typename id ... on User { key segments { slug } } ... on Segment { slug }
  ... on Rollout { status } ... on Report { month } ... on Import { mode }
  ... on Export { fileName } ... on ApiKey { name role } }"""
MISSING = ["99", "seg_99", "seg_3", "rol_2", "rol_99", "rep_99", "imp_99", "exp_99"]
"""Ids that are not stored, that of a deleted segment, and that of a segment without a rollout."""

INVALID = [
    *("", "x", "0", "01", "-1", "1.0", " 1", "9223372036854775808", "seg_", "seg_0", "seg_01"),
    *("seg_1_", "_1", "seg__1", "SEG_1", "seg_9223372036854775808", "mem_1", "his_1_joined"),
    *("aud_1", "key_", "key_key_aaaaaaaaaaaa", "key_AAAAAAAAAAAA", "sgql_aaaaaaaaaaaa_" + "0" * 64),
]


def test_every_node_type_is_in_the_table() -> None:
    interface = CORE.get_type("Node")
    assert isinstance(interface, GraphQLInterfaceType)
    names = {kind.name for kind in CORE.get_possible_types(interface)}
    assert names == {*NODES.values(), "ApiKey"}


@pytest.mark.parametrize("node_id", NODES)
async def test_node_has_its_type_and_its_id(context: Context, node_id: str) -> None:
    query = f"query($id: ID!) {{ node(id: $id) {SELECTION} }}"
    document = parse(query)
    plan = compile_operation(CORE, document, document.definitions[0])  # type: ignore[arg-type]
    assert plan
    data: Any = await plan.run(context, {"id": node_id})
    assert data["node"]["__typename"] == NODES[node_id]
    assert data["node"]["id"] == node_id
    plain = await execute(PLAIN_EXECUTOR, context, query, id=node_id)
    assert plain.body["data"] == data


@pytest.mark.parametrize("node_id", MISSING)
async def test_node_that_does_not_exist_is_null(context: Context, node_id: str) -> None:
    for executor in (COMPILING_EXECUTOR, PLAIN_EXECUTOR):
        response = await execute(executor, context, f'{{ node(id: "{node_id}") {SELECTION} }}')
        assert response.body["data"] == {"node": None}
        assert "errors" not in response.body


@pytest.mark.parametrize("node_id", INVALID)
async def test_invalid_id_is_rejected_and_not_repeated(context: Context, node_id: str) -> None:
    query = "query($id: ID!) { node(id: $id) { id } }"
    planned = await execute(COMPILING_EXECUTOR, context, query, id=node_id)
    plain = await execute(PLAIN_EXECUTOR, context, query, id=node_id)
    assert comparable_response(planned) == comparable_response(plain)
    allowed = (
        "the number of a user, or an id that begins with one of exp_, imp_, key_, rep_, rol_, seg_"
    )
    (error,) = planned.body["errors"]
    assert (
        error["message"]
        == f"id is not valid: the value is not the id of a node. Allowed: {allowed}."
    )
    assert error["extensions"] == {"code": "BAD_REQUEST", "argument": "id", "allowed": allowed}


@pytest.mark.parametrize("role", ["READER", "EDITOR", "ADMIN"])
async def test_only_admin_sees_reports_on_all_users_and_keys(
    auth_api: Api, database: Database, sql: Sql, role: str
) -> None:
    await sql.execute(
        """
        INSERT INTO reports (user_id, year, month, status, created_at, next_attempt_at)
        VALUES (NULL, 2024, 3, 'QUEUED', now(), now()), (7, 2024, 3, 'QUEUED', now(), now())
        """
    )
    key = await make_key(database, role, "eve")
    query = f"""{{ all: node(id: "rep_1") {{ id }} one: node(id: "rep_2") {{ id }}
      key: node(id: "key_{key.public_id}") {SELECTION}
      unknown: node(id: "key_aaaaaaaaaaaa") {{ id }} }}"""
    body = (await send_query(auth_api, bearer(key.token), query)).json()
    is_admin = role == "ADMIN"
    own = {"__typename": "ApiKey", "id": f"key_{key.public_id}", "name": "eve", "role": role}
    assert body["data"] == {
        "all": {"id": "rep_1"} if is_admin else None,
        "one": {"id": "rep_2"},
        "key": own if is_admin else None,
        "unknown": None,
    }
    assert [(error["path"], error["extensions"]) for error in body.get("errors", [])] == [
        ([field], {"code": "FORBIDDEN", "needed": "ADMIN", "role": role})
        for field in ("key", "unknown")
        if not is_admin
    ]
