"""A key with the role EVALUATOR reads nothing through GraphQL except `viewer`."""

import pytest

from segmentql.adapters.database import Database
from tests.conftest import Api, recorded_statements
from tests.keys.clients import bearer, make_key, send_query

VIEWER = {"name": "ada", "role": "EVALUATOR"}


@pytest.mark.parametrize(
    ("query", "data", "paths"),
    [
        ("{ viewer { name role } }", {"viewer": VIEWER}, []),
        (
            "{ __typename me: viewer { name role } }",
            {"__typename": "Query", "me": VIEWER},
            [],
        ),
        ("{ viewer: user(id: 1) { id } }", {"viewer": None}, [["viewer"]]),
        (
            '{ ...F ... on Query { b: segment(slug: "A") { slug } } } fragment F on Query'
            " { a: usersById(ids: [1]) { segments { slug } } }",
            {"a": None, "b": None},
            [["a"], ["b"]],
        ),
        (
            '{ __schema { types { name } } __type(name: "User") { name } }',
            None,
            [["__schema"]],
        ),
    ],
)
async def test_evaluator_may_query_only_viewer(
    auth_api: Api, database: Database, query: str, data: object, paths: list[list[str]]
) -> None:
    key = await make_key(database, "EVALUATOR")
    with recorded_statements() as statements:
        body = (await send_query(auth_api, bearer(key.token), query)).json()
    assert body["data"] == data
    errors = body.get("errors", [])
    assert [error["path"] for error in errors] == paths
    assert {error["extensions"]["code"] for error in errors} <= {"FORBIDDEN"}
    # On a slow machine the key is read again.
    assert [statement for statement in statements if "api_keys" not in statement] == []
