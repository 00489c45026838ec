"""`user`, `usersById` and `users` return users and their segments."""

from typing import Any

from segmentql.validators import USER_ID_ALLOWED
from tests.back_dating import HOUR, NOON, all_rows, insert_membership
from tests.conftest import Api, Sql, recorded_statements
from tests.invalid_values import BAD_SLUGS
from tests.operations import (
    create_user,
    delete_segment,
    delete_user,
    make_segments,
    update_user_segments,
)

PAGE = """
query($first: Int, $after: String) { users(first: $first, after: $after) {
  nodes { id } edges { cursor node { id } }
  pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
} }
"""


async def store(api: Api, *numbers: int) -> None:
    for number in numbers:
        await create_user(api, id=str(number))


async def page(api: Api, **arguments: Any) -> Any:
    return (await api(PAGE, **arguments))["users"]


def ids(page: Any) -> list[str]:
    return [node["id"] for node in page["nodes"]]


async def test_unknown_user_is_null(api: Api, sql: Sql) -> None:
    before = await all_rows(sql)
    assert await api("{ user(id: 7) { id } }") == {"user": None}
    assert await all_rows(sql) == before


async def test_users_by_id_keeps_order_and_duplicates(
    api: Api,
) -> None:
    await store(api, 1, 2, 3)
    data = await api('{ usersById(ids: ["3", "9", "1", "3", "2", "9"]) { id } }')
    assert data["usersById"] == [{"id": "3"}, None, {"id": "1"}, {"id": "3"}, {"id": "2"}, None]


async def test_users_are_returned_with_their_current_segments(api: Api, sql: Sql) -> None:
    await store(api, 1, 2, 3)
    await make_segments(api, "B", "A", "ENDED", "DELETED")
    await update_user_segments(api, 1, add=["B", "A", "DELETED"])
    await update_user_segments(api, 2, add=["B"])
    await insert_membership(sql, 1, "ENDED", joined_at=NOON, expires_at=NOON + HOUR)
    await insert_membership(sql, 3, "ENDED", joined_at=NOON, expires_at=NOON + HOUR)
    await delete_segment(api, "DELETED")
    user = "{ id createdAt segments { slug } }"
    data = await api(f"{{ usersById(ids: [3, 9, 1, 2, 1]) {user} users {{ nodes {user} }} }}")
    one, two, three = data["users"]["nodes"]  # the users are read first, and then their segments
    assert data["usersById"] == [three, None, one, two, one]
    slugs = [[segment["slug"] for segment in user["segments"]] for user in (one, two, three)]
    assert slugs == [["A", "B"], ["B"], []]


async def test_users_by_id_without_ids_is_an_empty_list(api: Api) -> None:
    with recorded_statements() as statements:
        assert await api("{ usersById(ids: []) { id } }") == {"usersById": []}
    assert statements == []


async def test_users_by_id_reads_a_thousand_in_one_statement(api: Api, sql: Sql) -> None:
    await sql.execute("INSERT INTO users SELECT n, now() FROM generate_series(1, 999) AS n")
    requested_ids = [str(number) for number in range(1000, 0, -1)]
    with recorded_statements() as statements:
        data = await api("query($ids: [ID!]!) { usersById(ids: $ids) { id } }", ids=requested_ids)
    assert data["usersById"] == [None, *({"id": number} for number in requested_ids[1:])]
    assert len(statements) == 1


async def test_users_by_id_rejects_more_than_a_thousand_ids(api: Api) -> None:
    query = "query($ids: [ID!]!) { usersById(ids: $ids) { id } }"
    body = await api.body(query, ids=["1"] * 1001)
    assert body["data"] == {"usersById": None}
    assert body["errors"][0]["path"] == ["usersById"]
    assert body["errors"][0]["extensions"] == {
        "code": "LIMIT_EXCEEDED",
        "argument": "ids",
        "limit": 1000,
        "value": 1001,
    }


async def test_invalid_id_in_a_list_is_named_by_its_position(api: Api) -> None:
    error = await api.error('{ usersById(ids: ["1", "2", "zero"]) { id } }')
    assert error["extensions"] == {
        "code": "BAD_REQUEST",
        "argument": "ids.2",
        "allowed": USER_ID_ALLOWED,
    }


async def test_users_are_ordered_by_numeric_id(api: Api) -> None:
    await store(api, 10, 9, 1000, 1)
    first = await page(api, first=3)
    assert ids(first) == ["1", "9", "10"]
    assert [edge["node"]["id"] for edge in first["edges"]] == ids(first)
    assert first["pageInfo"] == {
        "hasNextPage": True,
        "hasPreviousPage": False,
        "startCursor": first["edges"][0]["cursor"],
        "endCursor": first["edges"][2]["cursor"],
    }
    second = await page(api, first=3, after=first["pageInfo"]["endCursor"])
    assert ids(second) == ["1000"]
    assert second["pageInfo"] == {
        "hasNextPage": False,
        "hasPreviousPage": True,
        "startCursor": second["edges"][0]["cursor"],
        "endCursor": second["edges"][0]["cursor"],
    }


async def test_last_page_has_no_next_page(api: Api) -> None:
    await store(api, 1, 2)
    assert (await page(api, first=2))["pageInfo"]["hasNextPage"] is False


async def test_page_without_users_is_empty_and_has_no_cursors(api: Api) -> None:
    assert await page(api) == {
        "nodes": [],
        "edges": [],
        "pageInfo": {
            "hasNextPage": False,
            "hasPreviousPage": False,
            "startCursor": None,
            "endCursor": None,
        },
    }


async def test_every_edge_of_a_page_has_a_usable_cursor(api: Api) -> None:
    await store(api, 1, 2, 3, 4)
    middle = (await page(api))["edges"][1]["cursor"]
    assert ids(await page(api, after=middle)) == ["3", "4"]


async def test_changes_between_pages_cause_no_gap_or_repeat(
    api: Api,
) -> None:
    await store(api, 10, 20, 30, 40)
    first = await page(api, first=2)
    await delete_user(api, 20)  # the row that the cursor points to
    await store(api, 5, 15, 25)
    second = await page(api, first=2, after=first["pageInfo"]["endCursor"])
    third = await page(api, first=2, after=second["pageInfo"]["endCursor"])
    assert ids(first) + ids(second) + ids(third) == ["10", "20", "25", "30", "40"]


async def test_segments_of_a_user_are_ordered_by_slug(api: Api) -> None:
    await make_segments(api, "b", "B", "a", "A_a", "0", "A-a", "A.a")
    await update_user_segments(api, 7, add=["b", "B", "a", "A_a", "0", "A-a", "A.a"])
    data = await api("{ user(id: 7) { segments { slug } memberships { segment { slug } } } }")
    slugs = [segment["slug"] for segment in data["user"]["segments"]]
    assert slugs == ["0", "A-a", "A.a", "A_a", "B", "a", "b"]
    assert [m["segment"]["slug"] for m in data["user"]["memberships"]] == slugs


async def test_is_in_is_false_for_an_unknown_slug(api: Api) -> None:
    await make_segments(api, "A", "B")
    await update_user_segments(api, 7, add=["A"])
    data = await api(
        """{ user(id: 7) { a: isIn(slug: "A") b: isIn(slug: "B") none: isIn(slug: "NONE")
        case: isIn(slug: "a") excluded: isExcluded(slug: "NONE") } }"""
    )
    assert data["user"] == {"a": True, "b": False, "none": False, "case": False, "excluded": False}


async def test_membership_is_the_active_one_in_the_segment_with_the_slug(
    api: Api, sql: Sql
) -> None:
    await make_segments(api, "A", "B", "EXPIRED")
    await update_user_segments(api, 7, add=["A"], ttlSeconds=3600)
    await update_user_segments(api, 8, add=["A", "B"])
    await insert_membership(sql, 7, "EXPIRED", expires_at=NOON + HOUR)
    fields = "id joinedAt updatedAt expiresAt cause actor segment { slug } user { id createdAt }"
    data = await api(
        f"""{{ usersById(ids: [7, 8]) {{ memberships {{ {fields} }}
        a: membership(slug: "A") {{ {fields} }} b: membership(slug: "B") {{ {fields} }}
        expired: membership(slug: "EXPIRED") {{ id }} none: membership(slug: "NONE") {{ id }}
        case: membership(slug: "a") {{ id }} }} }}"""
    )
    absent = {"expired": None, "none": None, "case": None}
    (one,), (first, second) = (user.pop("memberships") for user in data["usersById"])
    assert one["expiresAt"] is not None
    assert (one["user"]["id"], first["user"]["id"], second["segment"]["slug"]) == ("7", "8", "B")
    assert data["usersById"] == [
        {"a": one, "b": None, **absent},
        {"a": first, "b": second, **absent},
    ]


async def test_invalid_slug_in_is_in_counts_as_unknown(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"])
    query = """query($slug: String!) {
      segment(slug: $slug) { id } user(id: 7) {
        id isIn(slug: $slug) isExcluded(slug: $slug) membership(slug: $slug) { id } }
    }"""
    for slug in (*BAD_SLUGS, "UNKNOWN"):
        assert await api(query, slug=slug) == {
            "segment": None,
            "user": {"id": "7", "isIn": False, "isExcluded": False, "membership": None},
        }, ascii(slug)
