"""`explain(userKey:)` explains the user who had the key at the time, or last before it."""

from datetime import datetime
from typing import Any

import pytest

from segmentql.validators import USER_KEY_ALLOWED
from tests.back_dating import MICROSECOND, all_rows
from tests.conftest import Api, Sql
from tests.explain.operations import EXPLANATION, explain
from tests.operations import (
    create_user,
    delete_user,
    make_segments,
    parse_timestamp,
    update_user_segments,
)

EXPLAIN = f"""
query($userId: ID, $userKey: String, $asOf: DateTime) {{
  explain(userId: $userId, userKey: $userKey, slug: "A", asOf: $asOf) {{ {EXPLANATION} }}
}}
"""


async def explain_key(api: Api, key: str, at: datetime | None = None) -> Any:
    variables = {"userKey": key} if at is None else {"userKey": key, "asOf": at.isoformat()}
    explanation = (await api(EXPLAIN, **variables))["explain"]
    del explanation["at"]  # the time of the query
    return explanation


async def explain_id(api: Api, user_id: int, at: datetime | None = None) -> Any:
    explanation = await explain(api, user_id, "A", at)
    del explanation["at"]
    return explanation


async def test_stored_user_is_explained_by_key_as_by_id(api: Api) -> None:
    await make_segments(api, "A")
    await create_user(api, id="7", key="a")
    assert await explain_key(api, "a") == await explain_id(api, 7)
    await update_user_segments(api, 7, add=["A"])
    found = await explain_key(api, "a")
    assert (found["isIn"], found["reason"]) == (True, "ADDED_BY_HAND")
    assert found == await explain_id(api, 7)
    query = '{ explain(userKey: "a", slug: "A") { membership { user { id key } } } }'
    assert (await api(query))["explain"]["membership"]["user"] == {"id": "7", "key": "a"}


async def test_key_that_was_set_later_is_the_key_of_the_stored_user(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 8, add=["A"])
    await create_user(api, id="7", key="a")
    await delete_user(api, 7)
    await api(
        'mutation { updateUser(input: {id: 8, key: "a"}) { errors { message } user { id } } }'
    )
    found = await explain_key(api, "a")
    assert (found["isIn"], found["reason"]) == (True, "ADDED_BY_HAND")
    assert found == await explain_id(api, 8)


async def test_key_of_several_users_is_the_user_of_that_time(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await create_user(api, id="7", key="a")
    await update_user_segments(api, 7, add=["A"])
    await delete_user(api, 7)
    assert await explain_key(api, "a") == await explain_id(api, 7)
    assert (await explain_key(api, "a"))["reason"] == "LEFT_WITH_USER"
    payload = await create_user(api, id="8", key="a")
    stored_at = parse_timestamp(payload["user"]["createdAt"])
    assert await explain_key(api, "a") == await explain_id(api, 8)
    assert await explain_key(api, "a", stored_at) == await explain_id(api, 8, stored_at)
    before = stored_at - MICROSECOND
    assert await explain_key(api, "a", before) == await explain_id(api, 7, before)
    joined_at = await sql.fetchval("SELECT at FROM history WHERE operation = 'JOINED'")
    found = await explain_key(api, "a", joined_at)
    assert (found["isIn"], found) == (True, await explain_id(api, 7, joined_at))


async def test_user_stored_last_has_the_key_if_the_clock_was_set_back(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    for user_id in ("7", "8"):
        await create_user(api, id=user_id, key="a")
        await delete_user(api, int(user_id))
    await sql.execute(
        """
        UPDATE user_lifetimes SET created_at = created_at - CASE user_id
            WHEN 7 THEN interval '1 hour' ELSE interval '2 hours' END
        """
    )
    await sql.execute("UPDATE segments SET created_at = created_at - interval '1 day'")
    at = await sql.fetchval("SELECT now() - interval '30 minutes'")
    found = await explain_key(api, "a", at)
    assert found == await explain_id(api, 8, at)
    assert found != await explain_id(api, 7, at)


async def test_unknown_and_erased_keys_are_not_stored(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, "a", add=["A"])
    await delete_user(api, "a", eraseKey=True)
    for key in ("a", "none"):
        found = await explain_key(api, key)
        assert (found["isIn"], found["reason"]) == (False, "USER_NOT_STORED")
        assert found["summary"] == "The user is not stored."
        assert (found["lastEntry"], found["membership"], found["rollout"]) == (None, None, None)
        assert found["steps"][-1] == {
            "check": "user is stored",
            "passed": False,
            "detail": "No user is known to have had the key.",
        }


@pytest.mark.parametrize(
    ("arguments", "argument", "allowed"),
    [
        ({}, "userId", "exactly one of `userId` and `userKey`"),
        ({"userId": None, "userKey": None}, "userId", "exactly one of `userId` and `userKey`"),
        ({"userId": "7", "userKey": "a"}, "userKey", "exactly one of `userId` and `userKey`"),
        ({"userKey": ""}, "userKey", USER_KEY_ALLOWED),
        ({"userKey": "a\n"}, "userKey", USER_KEY_ALLOWED),
    ],
)
async def test_invalid_arguments_are_rejected(
    api: Api, sql: Sql, arguments: dict[str, Any], argument: str, allowed: str
) -> None:
    before = await all_rows(sql)
    error = await api.error(EXPLAIN, **arguments)
    assert error["extensions"] == {
        "code": "BAD_REQUEST",
        "argument": argument,
        "allowed": allowed,
    }
    assert await all_rows(sql) == before
