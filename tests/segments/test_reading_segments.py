"""`segment` and `segments` return segments and their members."""

from typing import Any

from segmentql.validators import SLUG_ALLOWED
from tests.back_dating import HOUR, NOON, insert_membership
from tests.conftest import Api, Sql
from tests.operations import delete_segment, delete_user, make_segments, update_user_segments

PAGE = """
query($first: Int, $after: String, $prefix: String) {
  segments(first: $first, after: $after, prefix: $prefix) {
    nodes { slug } pageInfo { hasNextPage endCursor }
  }
}
"""

MEMBERS = """
query($first: Int, $after: String) { segment(slug: "A") {
  memberCount
  members(first: $first, after: $after) {
    nodes { user { id } segment { slug } } pageInfo { hasNextPage endCursor }
  }
} }
"""


async def page(api: Api, **arguments: Any) -> Any:
    return (await api(PAGE, **arguments))["segments"]


async def slugs(api: Api, **arguments: Any) -> list[str]:
    return [node["slug"] for node in (await page(api, **arguments))["nodes"]]


async def members(api: Api, **arguments: Any) -> Any:
    return (await api(MEMBERS, **arguments))["segment"]


def numbers(segment: Any) -> list[str]:
    return [node["user"]["id"] for node in segment["members"]["nodes"]]


async def test_unknown_slug_is_null(api: Api) -> None:
    await make_segments(api, "A")
    assert await api('{ segment(slug: "a") { id } }') == {"segment": None}


async def test_segments_are_ordered_by_code_points(api: Api) -> None:
    await make_segments(api, "b", "B", "a", "A_a", "9", "10", "A-a", "A.a", "Aa", "A")
    assert await slugs(api) == ["10", "9", "A", "A-a", "A.a", "A_a", "Aa", "B", "a", "b"]


async def test_prefix_is_case_sensitive(api: Api) -> None:
    await make_segments(api, "A", "AB", "A-B", "A_B", "a", "B", "AZ", "Az", "A.z", "BA")
    assert await slugs(api, prefix="A") == ["A", "A-B", "A.z", "AB", "AZ", "A_B", "Az"]
    assert await slugs(api, prefix="A_") == ["A_B"]  # not a wildcard of LIKE
    assert await slugs(api, prefix="C") == []


async def test_empty_or_null_prefix_selects_all(api: Api) -> None:
    await make_segments(api, "A", "b")
    assert await slugs(api, prefix="") == await slugs(api, prefix=None) == ["A", "b"]


async def test_invalid_prefix_is_rejected_by_name(api: Api) -> None:
    assert (await api.error(PAGE, prefix="A%"))["extensions"] == {
        "code": "BAD_REQUEST",
        "argument": "prefix",
        "allowed": SLUG_ALLOWED,
    }


async def test_pages_continue_within_a_prefix(api: Api) -> None:
    await make_segments(api, "A1", "A2", "A3", "A4", "B1")
    first = await page(api, first=2, prefix="A")
    second = await page(api, first=2, prefix="A", after=first["pageInfo"]["endCursor"])
    assert [node["slug"] for node in first["nodes"] + second["nodes"]] == ["A1", "A2", "A3", "A4"]
    assert [first["pageInfo"]["hasNextPage"], second["pageInfo"]["hasNextPage"]] == [True, False]


async def test_changes_between_pages_cause_no_gap_or_repeat(
    api: Api,
) -> None:
    await make_segments(api, "B", "D", "F", "H")
    first = await page(api, first=2)
    await delete_segment(api, "D")  # the row that the cursor points to
    await make_segments(api, "A", "C", "E")
    rest = await page(api, after=first["pageInfo"]["endCursor"])
    assert [node["slug"] for node in first["nodes"] + rest["nodes"]] == ["B", "D", "E", "F", "H"]


async def test_members_are_ordered_by_numeric_user_id(api: Api) -> None:
    await make_segments(api, "A")
    for user_id in (10, 9, 1000, 1):
        await update_user_segments(api, user_id, add=["A"])
    segment = await members(api)
    assert segment["memberCount"] == 4
    assert numbers(segment) == ["1", "9", "10", "1000"]
    assert [node["segment"]["slug"] for node in segment["members"]["nodes"]] == ["A"] * 4


async def test_only_active_members_are_returned_and_counted(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B")
    await update_user_segments(api, 1, add=["A"])
    await update_user_segments(api, 2, add=["A"], ttlSeconds=3600)
    await update_user_segments(api, 3, add=["B"])
    await update_user_segments(api, 4, add=["A"])
    await update_user_segments(api, 4, remove=["A"])
    await update_user_segments(api, 5, add=["A"])
    await delete_user(api, 5)
    await insert_membership(sql, 6, "A", expires_at=NOON + HOUR)
    segment = await members(api)
    assert segment["memberCount"] == 2
    assert numbers(segment) == ["1", "2"]


async def test_joins_and_leaves_between_member_pages_cause_no_gap(api: Api) -> None:
    await make_segments(api, "A")
    for user_id in (10, 20, 30, 40):
        await update_user_segments(api, user_id, add=["A"])
    first = await members(api, first=2)
    await update_user_segments(api, 20, remove=["A"])
    for user_id in (5, 25):
        await update_user_segments(api, user_id, add=["A"])
    rest = await members(api, first=2, after=first["members"]["pageInfo"]["endCursor"])
    last = await members(api, first=2, after=rest["members"]["pageInfo"]["endCursor"])
    assert numbers(first) + numbers(rest) + numbers(last) == ["10", "20", "25", "30", "40"]
    assert last["members"]["pageInfo"]["hasNextPage"] is False


async def test_full_page_of_members_has_a_hundred(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    for user_id in range(1, 102):
        await insert_membership(sql, user_id, "A")
    first = await members(api, first=100)
    rest = await members(api, first=100, after=first["members"]["pageInfo"]["endCursor"])
    assert first["memberCount"] == 101
    assert numbers(first) == [str(number) for number in range(1, 101)]
    assert first["members"]["pageInfo"]["hasNextPage"] is True
    assert numbers(rest) == ["101"]


async def test_ids_are_opaque_and_have_a_type_prefix(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    number = await insert_membership(sql, 7, "A")
    data = await api('{ segment(slug: "A") { id members { nodes { id user { id } } } } }')
    assert data["segment"] == {
        "id": "seg_1",
        "members": {"nodes": [{"id": f"mem_{number}", "user": {"id": "7"}}]},
    }
