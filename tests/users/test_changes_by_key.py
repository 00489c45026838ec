"""Mutations accept the key of a user instead of the id."""

import pytest

from segmentql.rollouts.sampling import rollout_hash_v1
from tests.back_dating import all_rows
from tests.conftest import Api, Sql, recorded_statements
from tests.operations import (
    ERRORS,
    change_counts,
    create_user,
    delete_user,
    make_segments,
    segment_slugs,
    update_user_segments,
)
from tests.rollouts.graphql_client import set_rollout
from tests.users.key_helpers import FIRST_ID, id_by_key


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
