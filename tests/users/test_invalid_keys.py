"""Invalid keys are rejected by every field, and by the database."""

from segmentql.validators import USER_ID_ALLOWED, USER_KEY_ALLOWED
from tests.back_dating import all_rows
from tests.conftest import Api, Sql
from tests.invalid_values import BAD_USER_KEYS, GOOD_USER_KEYS
from tests.operations import ERRORS, create_user, update_user_segments

MUTATIONS = f"""
mutation($key: String!) {{
  createUser(input: {{key: $key}}) {{ user {{ id }} {ERRORS} }}
  updateUser(input: {{id: 1, key: $key}}) {{ user {{ id }} {ERRORS} }}
  deleteUser(input: {{key: $key}}) {{ deletedId {ERRORS} }}
  updateUserSegments(input: {{userKey: $key}}) {{ user {{ id }} {ERRORS} }}
}}
"""
QUERIES = """
query($key: String!) { userByKey(key: $key) { id } usersByKey(keys: ["a", $key]) { id }
  users(first: 1) { nodes { id } } }
"""


async def test_invalid_key_is_rejected_by_every_field(api: Api, sql: Sql) -> None:
    await create_user(api, id="1")
    before = await all_rows(sql)
    for key in BAD_USER_KEYS:
        for field, payload in (await api(MUTATIONS, key=key)).items():
            (error,) = payload["errors"]
            path = "userKey" if field == "updateUserSegments" else "key"
            assert (error["code"], error["path"], error["allowed"]) == (
                "INVALID_INPUT",
                [path],
                USER_KEY_ALLOWED,
            ), ascii(key)
        body = await api.body(QUERIES, key=key)
        assert body["data"] == {
            "userByKey": None,
            "usersByKey": None,
            "users": {"nodes": [{"id": "1"}]},
        }
        assert sorted(
            (error["extensions"]["argument"], error["extensions"]["allowed"])
            for error in body["errors"]
        ) == [("key", USER_KEY_ALLOWED), ("keys.1", USER_KEY_ALLOWED)], ascii(key)
    assert await all_rows(sql) == before


async def test_lone_surrogate_in_a_key_is_rejected_before_execution(api: Api, sql: Sql) -> None:
    for body in (
        rb'{"query": "mutation($k: String) { createUser(input: {key: $k}) { user { id } } }",'
        rb' "variables": {"k": "\ud800"}}',
        rb'{"query": "mutation { createUser(input: {key: \"\\ud800\"}) { user { id } } }"}',
    ):
        response = await api.http.post(
            "/graphql", content=body, headers={"content-type": "application/json"}
        )
        (error,) = response.json()["errors"]
        assert error["extensions"]["code"] == "BAD_REQUEST"
        assert "data" not in response.json()
    assert await sql.fetchval("SELECT count(*) FROM users") == 0


async def test_all_errors_of_an_input_are_returned_at_once(api: Api, sql: Sql) -> None:
    before = await all_rows(sql)
    payload = await create_user(api, id="0", key="")
    assert [(error["path"], error["allowed"]) for error in payload["errors"]] == [
        (["id"], USER_ID_ALLOWED),
        (["key"], USER_KEY_ALLOWED),
    ]
    payload = await update_user_segments(api, "", userId="0", add=["A B"])
    assert [error["path"] for error in payload["errors"]] == [
        ["userId"],
        ["userKey"],
        ["userKey"],
        ["add", "0"],
    ]
    assert await all_rows(sql) == before


async def test_database_rejects_invalid_keys(sql: Sql) -> None:
    for number, key in enumerate(GOOD_USER_KEYS, start=1):
        await sql.execute(
            "INSERT INTO users (id, created_at, key) VALUES ($1, now(), $2)", number, key
        )
    for key in (key for key in BAD_USER_KEYS if "\0" not in key):
        message = ""
        try:
            await sql.execute("INSERT INTO users (id, created_at, key) VALUES (99, now(), $1)", key)
        except Exception as error:  # noqa: BLE001 - its message is asserted
            message = str(error)
        assert "ck_users_key_form" in message, ascii(key)
