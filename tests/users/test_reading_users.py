"""`user`, `usersById` and `users`."""

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


async def test_a_user_who_is_not_stored_is_null(api: Api, sql: Sql) -> None:
    before = await all_rows(sql)
    assert await api("{ user(id: 7) { id } }") == {"user": None}
    assert await all_rows(sql) == before


async def test_users_by_id_keeps_order_and_repeats_and_answers_null_for_the_unknown(
    api: Api,
) -> None:
    await store(api, 1, 2, 3)
    data = await api('{ usersById(ids: ["3", "9", "1", "3", "2", "9"]) { id } }')
    assert data["usersById"] == [{"id": "3"}, None, {"id": "1"}, {"id": "3"}, {"id": "2"}, None]


async def test_users_are_read_along_with_the_segments_they_are_in_now(api: Api, sql: Sql) -> None:
    await store(api, 1, 2, 3)
    await make_segments(api, "B", "A", "ENDED", "DELETED")
    await update_user_segments(api, 1, add=["B", "A", "DELETED"])
    await update_user_segments(api, 2, add=["B"])
    await insert_membership(sql, 1, "ENDED", joined_at=NOON, expires_at=NOON + HOUR)
    await insert_membership(sql, 3, "ENDED", joined_at=NOON, expires_at=NOON + HOUR)
    await delete_segment(api, "DELETED")
    user = "{ id createdAt segments { slug } }"
    data = await api(f"{{ usersById(ids: [3, 9, 1, 2, 1]) {user} users {{ nodes {user} }} }}")
    one, two, three = data["users"]["nodes"]  # read first, and then their segments
    assert data["usersById"] == [three, None, one, two, one]
    slugs = [[segment["slug"] for segment in user["segments"]] for user in (one, two, three)]
    assert slugs == [["A", "B"], ["B"], []]


async def test_users_by_id_of_nobody_is_an_empty_list(api: Api) -> None:
    with recorded_statements() as statements:
        assert await api("{ usersById(ids: []) { id } }") == {"usersById": []}
    assert statements == []


async def test_a_thousand_users_by_id_are_one_statement(api: Api, sql: Sql) -> None:
    await sql.execute("INSERT INTO users SELECT n, now() FROM generate_series(1, 999) AS n")
    asked = [str(number) for number in range(1000, 0, -1)]
    with recorded_statements() as statements:
        data = await api("query($ids: [ID!]!) { usersById(ids: $ids) { id } }", ids=asked)
    assert data["usersById"] == [None, *({"id": number} for number in asked[1:])]
    assert len(statements) == 1


async def test_more_than_a_thousand_users_by_id_are_beyond_the_limit(api: Api) -> None:
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


async def test_a_bad_id_among_good_ones_is_named_by_its_position(api: Api) -> None:
    error = await api.error('{ usersById(ids: ["1", "2", "zero"]) { id } }')
    assert error["extensions"] == {
        "code": "BAD_REQUEST",
        "argument": "ids.2",
        "allowed": USER_ID_ALLOWED,
    }


async def test_users_are_paged_by_number_not_by_digits(api: Api) -> None:
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


async def test_a_page_that_takes_all_that_is_left_has_none_after_it(api: Api) -> None:
    await store(api, 1, 2)
    assert (await page(api, first=2))["pageInfo"]["hasNextPage"] is False


async def test_without_users_the_page_is_empty_and_without_cursors(api: Api) -> None:
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


async def test_any_edge_of_a_page_may_be_continued_from(api: Api) -> None:
    await store(api, 1, 2, 3, 4)
    middle = (await page(api))["edges"][1]["cursor"]
    assert ids(await page(api, after=middle)) == ["3", "4"]


async def test_users_stored_and_deleted_between_pages_neither_repeat_nor_hide_others(
    api: Api,
) -> None:
    await store(api, 10, 20, 30, 40)
    first = await page(api, first=2)
    await delete_user(api, 20)  # the very row that the cursor stands on
    await store(api, 5, 15, 25)
    second = await page(api, first=2, after=first["pageInfo"]["endCursor"])
    third = await page(api, first=2, after=second["pageInfo"]["endCursor"])
    assert ids(first) + ids(second) + ids(third) == ["10", "20", "25", "30", "40"]


async def test_segments_of_a_user_are_by_slug_in_order_of_code_points(api: Api) -> None:
    await make_segments(api, "b", "B", "a", "A_a", "0", "A-a", "A.a")
    await update_user_segments(api, 7, add=["b", "B", "a", "A_a", "0", "A-a", "A.a"])
    data = await api("{ user(id: 7) { segments { slug } memberships { segment { slug } } } }")
    slugs = [segment["slug"] for segment in data["user"]["segments"]]
    assert slugs == ["0", "A-a", "A.a", "A_a", "B", "a", "b"]
    assert [m["segment"]["slug"] for m in data["user"]["memberships"]] == slugs


async def test_is_in_answers_false_for_a_slug_that_no_segment_bears(api: Api) -> None:
    await make_segments(api, "A", "B")
    await update_user_segments(api, 7, add=["A"])
    data = await api(
        """{ user(id: 7) { a: isIn(slug: "A") b: isIn(slug: "B") none: isIn(slug: "NONE")
        case: isIn(slug: "a") excluded: isExcluded(slug: "NONE") } }"""
    )
    assert data["user"] == {"a": True, "b": False, "none": False, "case": False, "excluded": False}


async def test_a_slug_that_no_segment_can_have_is_answered_as_an_unknown_one(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"])
    query = """query($slug: String!) {
      segment(slug: $slug) { id } user(id: 7) { id isIn(slug: $slug) isExcluded(slug: $slug) }
    }"""
    for slug in (*BAD_SLUGS, "UNKNOWN"):
        assert await api(query, slug=slug) == {
            "segment": None,
            "user": {"id": "7", "isIn": False, "isExcluded": False},
        }, ascii(slug)
