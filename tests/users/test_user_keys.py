"""Users have keys: strings of the client that are compared byte by byte."""

from tests.back_dating import all_rows
from tests.conftest import Api, Sql
from tests.invalid_values import GOOD_USER_KEYS
from tests.operations import create_user, delete_user, make_segments, update_user_segments
from tests.users.key_helpers import BY_KEYS, FIRST_ID, id_by_key, user_already_exists

SAME_TEXT = ("\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}")
"""Two keys that look the same and have different bytes."""


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


async def test_key_of_a_deleted_user_is_a_new_user_with_a_new_id(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, "a", add=["A"])
    assert await delete_user(api, "a") == {"deletedId": str(FIRST_ID), "errors": []}
    assert await id_by_key(api, "a") is None
    payload = await update_user_segments(api, "a")
    assert (payload["user"]["id"], payload["user"]["segments"]) == (str(FIRST_ID + 1), [])
    data = await api('{ userByKey(key: "a") { history { nodes { id } } } }')
    assert data["userByKey"]["history"]["nodes"] == []
