"""Queries by key return the same users as queries by id."""

from tests.back_dating import HOUR, NOON, insert_membership
from tests.conftest import Api, Sql, recorded_statements
from tests.operations import create_user, make_segments, update_user_segments
from tests.users.key_helpers import BY_KEYS


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
