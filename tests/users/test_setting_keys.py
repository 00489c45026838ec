"""The key of a stored user is set once."""

from tests.back_dating import all_rows
from tests.conftest import Api, Sql
from tests.operations import (
    create_user,
    delete_user,
    make_segments,
    set_user_key,
    update_user_segments,
)
from tests.users.key_helpers import BY_KEY, FIRST_ID, id_by_key, user_already_exists


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


async def test_key_of_a_deleted_user_can_be_given_to_another(api: Api) -> None:
    await create_user(api, id="1", key="a")
    await delete_user(api, 1)
    await create_user(api, id="2")
    assert (await set_user_key(api, 2, "a"))["errors"] == []
    assert (await create_user(api, id="1", key="b"))["errors"] == []
    assert [await id_by_key(api, key) for key in ("a", "b")] == [2, 1]
