"""Users have keys: strings of the client that are compared byte by byte and set once."""

from typing import Any

import pytest

from segmentql.rollouts.sampling import rollout_hash_v1
from segmentql.validators import USER_ID_ALLOWED, USER_KEY_ALLOWED
from tests.back_dating import HOUR, NOON, all_rows, insert_membership
from tests.conftest import Api, Sql, recorded_statements
from tests.invalid_values import BAD_USER_KEYS, GOOD_USER_KEYS
from tests.operations import (
    ERRORS,
    change_counts,
    create_user,
    delete_user,
    make_segments,
    segment_slugs,
    set_user_key,
    update_user_segments,
)
from tests.rollouts.graphql_client import set_rollout

FIRST_ID = 100_000_000_000_000
EITHER = "exactly one of `userId` and `userKey`"
SAME_TEXT = ("\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}")
"""Two keys that look the same and have different bytes."""

BY_KEYS = "query($keys: [String!]!) { usersByKey(keys: $keys) { id key } }"
BY_KEY = "query($key: String!) { userByKey(key: $key) { id key segments { slug } } }"


async def id_by_key(api: Api, key: str) -> int | None:
    user = (await api(BY_KEY, key=key))["userByKey"]
    return None if user is None else int(user["id"])


def user_already_exists(user: Any, field: str, message: str) -> dict[str, Any]:
    return {
        "__typename": "UserAlreadyExists",
        "code": "USER_ALREADY_EXISTS",
        "message": message,
        "path": [field],
        "user": {name: user[name] for name in ("id", "createdAt", "key")},
    }


async def test_new_key_is_stored_with_an_id_of_the_sequence(api: Api) -> None:
    for number, key in enumerate(GOOD_USER_KEYS):
        payload = await create_user(api, key=key)
        assert payload["errors"] == []
        assert payload["user"]["id"] == str(FIRST_ID + number)
        assert payload["user"]["key"] == key
    data = await api(BY_KEYS, keys=GOOD_USER_KEYS)
    assert [user["key"] for user in data["usersByKey"]] == list(GOOD_USER_KEYS)


async def test_user_with_id_and_key_has_both(api: Api) -> None:
    payload = await create_user(api, id="5", key="five")
    assert (payload["user"]["id"], payload["user"]["key"]) == ("5", "five")
    data = await api(
        '{ user(id: 5) { key } users { nodes { key } } userByKey(key: "five") { id } '
        'none: userByKey(key: "5") { id } }'
    )
    assert data == {
        "user": {"key": "five"},
        "users": {"nodes": [{"key": "five"}]},
        "userByKey": {"id": "5"},
        "none": None,
    }


async def test_user_without_id_and_key_gets_the_next_id(api: Api) -> None:
    await create_user(api, key="a")
    payload = await create_user(api)
    assert (payload["user"]["id"], payload["user"]["key"]) == ("1", None)
    assert (await create_user(api, id=None, key=None))["user"]["id"] == "2"


async def test_stored_key_is_rejected_with_its_user(api: Api, sql: Sql) -> None:
    first = (await create_user(api, key="a"))["user"]
    before = await all_rows(sql)
    for fields in ({"key": "a"}, {"key": "a", "id": "5"}):
        payload = await create_user(api, **fields)
        assert payload["user"] is None
        assert payload["errors"] == [
            user_already_exists(first, "key", f"User {FIRST_ID} already has this key.")
        ]
    assert await all_rows(sql) == before


async def test_stored_id_and_key_are_both_named(api: Api, sql: Sql) -> None:
    five = (await create_user(api, id="5"))["user"]
    keyed = (await create_user(api, id="6", key="a"))["user"]
    before = await all_rows(sql)
    payload = await create_user(api, id="5", key="a")
    assert sorted(payload["errors"], key=lambda error: str(error["path"])) == [
        user_already_exists(five, "id", "User 5 is already stored."),
        user_already_exists(keyed, "key", "User 6 already has this key."),
    ]
    payload = await create_user(api, id="6", key="a")
    assert [error["path"] for error in payload["errors"]] == [["id"], ["key"]]
    payload = await create_user(api, id="5", key="new")
    assert [error["path"] for error in payload["errors"]] == [["id"]]
    assert await all_rows(sql) == before


async def test_sequence_skips_ids_that_are_or_were_stored(api: Api) -> None:
    for offset in (0, 1, 3):
        await create_user(api, id=str(FIRST_ID + offset))
    await delete_user(api, FIRST_ID + 1)
    await create_user(api, id=str(FIRST_ID + 4))
    await update_user_segments(api, FIRST_ID + 5)
    await delete_user(api, FIRST_ID + 5)
    stored = [
        int((await create_user(api, key="a"))["user"]["id"]),
        int((await update_user_segments(api, "b"))["user"]["id"]),
    ]
    assert stored == [FIRST_ID + 2, FIRST_ID + 6]


async def test_keys_are_compared_byte_by_byte(api: Api) -> None:
    keys = ["a", "A", "a ", *SAME_TEXT]
    for key in keys:
        assert (await create_user(api, key=key))["errors"] == []
    assert [await id_by_key(api, key) for key in keys] == [FIRST_ID + n for n in range(5)]
    assert await id_by_key(api, "\N{LATIN CAPITAL LETTER E WITH ACUTE}") is None


async def test_users_by_key_keeps_order_and_duplicates(api: Api) -> None:
    for key in ("a", "b"):
        await create_user(api, key=key)
    data = await api(BY_KEYS, keys=["b", "none", "a", "b"])
    b, none, a, again = data["usersByKey"]
    assert (b["key"], none, a["key"], again) == ("b", None, "a", b)
    assert await api(BY_KEYS, keys=[]) == {"usersByKey": []}


async def test_thousand_keys_are_read_in_one_statement(api: Api, sql: Sql) -> None:
    keys = [f"k{number}" for number in range(1000)]
    await sql.execute(
        "INSERT INTO users (id, key, created_at) SELECT n + 1, 'k' || n, now()"
        " FROM generate_series(0, 998) AS n"
    )
    for selection in ("{ id }", "{ id segments { slug } }"):
        query = f"query($keys: [String!]!) {{ usersByKey(keys: $keys) {selection} }}"
        with recorded_statements() as statements:
            users = (await api(query, keys=keys))["usersByKey"]
        assert [user and int(user["id"]) for user in users] == [*range(1, 1000), None]
        assert len(statements) == 1
    body = await api.body(BY_KEYS, keys=[*keys, "k1000"])
    assert body["data"] == {"usersByKey": None}
    assert body["errors"][0]["extensions"] == {
        "code": "LIMIT_EXCEEDED",
        "argument": "keys",
        "limit": 1000,
        "value": 1001,
    }


async def test_user_by_key_is_the_user_by_id(api: Api, sql: Sql) -> None:
    await make_segments(api, "B", "A", "ENDED")
    for user_id, key in ((1, "a"), (2, "b"), (3, "c")):
        await create_user(api, id=str(user_id), key=key)
    await update_user_segments(api, 1, add=["B", "A"])
    await update_user_segments(api, "b", add=["B"], remove=["A"])
    await insert_membership(sql, 3, "ENDED", joined_at=NOON, expires_at=NOON + HOUR)
    user = """{ id key createdAt segments { slug } memberships { id user { key } }
      isIn(slug: "A") isExcluded(slug: "A") history { nodes { id } } }"""
    data = await api(
        f"""{{ ids: usersById(ids: [3, 1, 2]) {user}
          keys: usersByKey(keys: ["c", "a", "b"]) {user}
          one: user(id: 2) {user} key: userByKey(key: "b") {user} }}"""
    )
    assert data["ids"] == data["keys"]
    assert data["one"] == data["key"] == data["keys"][2]
    slugs = [[segment["slug"] for segment in user["segments"]] for user in data["keys"]]
    assert slugs == [[], ["A", "B"], ["B"]]
    past = '{ segments(asOf: "2024-03-01T12:30:00Z") { slug } }'
    data = await api(f'{{ userByKey(key: "c") {past} }}')
    assert data["userByKey"]["segments"] == [{"slug": "ENDED"}]


async def test_change_by_key_is_the_change_by_id(api: Api) -> None:
    await make_segments(api, "A", "B")
    await create_user(api, id="1", key="a")
    payload = await update_user_segments(api, "a", add=["A"], ttlSeconds=60)
    assert (payload["user"]["id"], payload["user"]["key"]) == ("1", "a")
    assert change_counts(payload) == (1, 0, 0)
    payload = await update_user_segments(api, 1, add=["A", "B"])
    assert change_counts(payload) == (1, 0, 1)
    payload = await update_user_segments(api, "a", remove=["A"])
    assert (change_counts(payload), segment_slugs(payload)) == ((0, 1, 0), ["B"])
    assert (await api('{ user(id: 1) { isExcluded(slug: "A") } }'))["user"] == {"isExcluded": True}


async def test_change_stores_an_unknown_key(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    payload = await update_user_segments(api, "new", add=["A"])
    assert payload["errors"] == []
    assert (payload["user"]["id"], payload["user"]["key"]) == (str(FIRST_ID), "new")
    assert segment_slugs(payload) == ["A"]
    assert await id_by_key(api, "new") == FIRST_ID
    assert await sql.fetchval("SELECT user_id FROM history") == FIRST_ID


async def test_rejected_change_does_not_store_the_key(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    before = await all_rows(sql)
    for fields in (
        {"add": ["A", "NOPE"]},
        {"add": ["A"], "expiresAt": "2020-01-01T00:00:00Z"},
        {"add": ["A"], "ttlSeconds": 0},
    ):
        payload = await update_user_segments(api, "new", **fields)
        assert (payload["user"], len(payload["errors"])) == (None, 1)
    assert await all_rows(sql) == before
    assert await id_by_key(api, "new") is None


@pytest.mark.parametrize("key", ["known", "new"])
async def test_change_by_key_takes_two_statements(api: Api, key: str) -> None:
    await make_segments(api, "A", "B")
    await create_user(api, key="known")
    with recorded_statements() as statements:
        await api(
            'mutation($key: String) { updateUserSegments(input: {userKey: $key, add: ["A", "B"]})'
            " { segmentsAdded } }",
            key=key,
        )
    assert len(statements) == 2


async def test_rollout_enrolls_new_keys_by_the_hash_of_the_id(api: Api) -> None:
    await make_segments(api, "A", "HALF")
    half = await api('{ segment(slug: "HALF") { id } }')
    segment_id = int(half["segment"]["id"].removeprefix("seg_"))
    await set_rollout(api, {"percent": 50}, "HALF")
    for number in range(20):
        payload = await update_user_segments(api, f"k{number}", add=["A"])
        is_enrolled = rollout_hash_v1(segment_id, FIRST_ID + number) < 2**47
        assert segment_slugs(payload) == (["A", "HALF"] if is_enrolled else ["A"])


async def test_user_is_named_by_exactly_one_of_id_and_key(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await create_user(api, id="1", key="a")
    before = await all_rows(sql)
    update = f"""mutation($input: UpdateUserSegmentsInput!) {{
      updateUserSegments(input: $input) {{ user {{ id }} {ERRORS} }} }}"""
    delete = f"""mutation($input: DeleteUserInput!) {{
      deleteUser(input: $input) {{ deletedId {ERRORS} }} }}"""
    for query, id_field, key_field, result in (
        (update, "userId", "userKey", "user"),
        (delete, "id", "key", "deletedId"),
    ):
        allowed = f"exactly one of `{id_field}` and `{key_field}`"
        neither = f"neither `{id_field}` nor `{key_field}` is set"
        both = f"both `{id_field}` and `{key_field}` are set"
        for fields, path, problem in (
            ({}, id_field, neither),
            ({id_field: None, key_field: None}, id_field, neither),
            ({id_field: "1", key_field: "a"}, key_field, both),
            ({id_field: "1", key_field: "b"}, key_field, both),
        ):
            (payload,) = (await api(query, input=fields)).values()
            assert payload == {
                result: None,
                "errors": [
                    {
                        "__typename": "InvalidInput",
                        "code": "INVALID_INPUT",
                        "message": f"{path} is not valid: {problem}. Allowed: {allowed}.",
                        "path": [path],
                        "allowed": allowed,
                    }
                ],
            }
    assert await all_rows(sql) == before


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


async def test_key_of_a_stored_user_is_set_once(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"])
    payload = await set_user_key(api, 7, "seven")
    assert payload["errors"] == []
    assert (payload["user"]["id"], payload["user"]["key"]) == ("7", "seven")
    assert (await api(BY_KEY, key="seven"))["userByKey"]["segments"] == [{"slug": "A"}]
    before = await all_rows(sql)
    assert await set_user_key(api, 7, "seven") == payload
    changed = await set_user_key(api, 7, "other")
    assert changed["user"] is None
    (error,) = changed["errors"]
    assert (error["__typename"], error["path"]) == ("InvalidInput", ["key"])
    assert error["message"] == (
        "key is not valid: user 7 already has another key, and a key is never changed. Allowed: the"
        " key that the user has, or if the user has none, a key that no other user has."
    )
    assert await all_rows(sql) == before


async def test_key_of_another_user_is_not_set(api: Api, sql: Sql) -> None:
    owner = (await create_user(api, key="a"))["user"]
    await create_user(api, id="7")
    before = await all_rows(sql)
    payload = await set_user_key(api, 7, "a")
    assert payload["user"] is None
    assert payload["errors"] == [
        user_already_exists(owner, "key", f"User {FIRST_ID} already has this key.")
    ]
    assert await all_rows(sql) == before


async def test_key_of_an_unknown_user_is_not_set(api: Api, sql: Sql) -> None:
    await create_user(api, id="8", key="a")
    await create_user(api, id="9")
    await delete_user(api, 9)
    before = await all_rows(sql)
    for user_id, key in ((7, "new"), (7, "a"), (9, "new")):
        payload = await set_user_key(api, user_id, key)
        assert payload["user"] is None
        assert payload["errors"] == [
            {
                "__typename": "UserNotFound",
                "code": "USER_NOT_FOUND",
                "message": f"User {user_id} is not stored.",
                "path": ["id"],
            }
        ]
    assert await all_rows(sql) == before


async def test_key_of_a_deleted_user_is_a_new_user_with_a_new_id(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, "a", add=["A"])
    assert await delete_user(api, "a") == {"deletedId": str(FIRST_ID), "errors": []}
    assert await id_by_key(api, "a") is None
    payload = await update_user_segments(api, "a")
    assert (payload["user"]["id"], payload["user"]["segments"]) == (str(FIRST_ID + 1), [])
    data = await api('{ userByKey(key: "a") { history { nodes { id } } } }')
    assert data["userByKey"]["history"]["nodes"] == []


async def test_key_of_a_deleted_user_can_be_given_to_another(api: Api) -> None:
    await create_user(api, id="1", key="a")
    await delete_user(api, 1)
    await create_user(api, id="2")
    assert (await set_user_key(api, 2, "a"))["errors"] == []
    assert (await create_user(api, id="1", key="b"))["errors"] == []
    assert [await id_by_key(api, key) for key in ("a", "b")] == [2, 1]


async def test_deletion_by_an_unknown_key_is_rejected(api: Api, sql: Sql) -> None:
    await create_user(api, key="a")
    await delete_user(api, "a")
    await create_user(api, id="1", key="b")
    before = await all_rows(sql)
    for key in ("a", "none"):
        assert await delete_user(api, key) == {
            "deletedId": None,
            "errors": [
                {
                    "__typename": "UserNotFound",
                    "code": "USER_NOT_FOUND",
                    "message": "No stored user has this key.",
                    "path": ["key"],
                }
            ],
        }
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
