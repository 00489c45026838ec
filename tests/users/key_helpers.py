"""Reads by key, and the error of a stored key."""

from typing import Any

from tests.conftest import Api

FIRST_ID = 100_000_000_000_000

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
