"""`history` has an order, pages and filters."""

import asyncio
from typing import Any

import pytest

from segmentql.validators import SLUG_ALLOWED, USER_ID_ALLOWED
from tests.back_dating import (
    HOUR,
    MICROSECOND,
    NOON,
    delete_segment_at,
    insert_membership,
    insert_past_membership,
)
from tests.conftest import Api, Sql
from tests.invalid_values import BAD_SLUGS, BAD_USER_IDS
from tests.operations import delete_segment, delete_user, make_segments, update_user_segments

HISTORY = """
query(
  $first: Int, $after: String, $userId: ID, $slug: String, $from: DateTime, $to: DateTime
) {
  history(
    first: $first, after: $after, userId: $userId, slug: $slug, from: $from, to: $to
  ) {
    nodes { id userId segment { slug } operation at }
    edges { cursor }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""

OF_USER = """
query($first: Int, $after: String, $slug: String, $from: DateTime, $to: DateTime) {
  user(id: 1) { history(first: $first, after: $after, slug: $slug, from: $from, to: $to) {
    nodes { id userId segment { slug } operation at } pageInfo { hasNextPage endCursor }
  } }
}
"""


async def page(api: Api, **arguments: Any) -> Any:
    return (await api(HISTORY, **arguments))["history"]


def lines(page: Any) -> list[str]:
    """Return entries in short form: `JOINED 1 A 12:00:00`."""
    return [
        f"{e['operation']} {e['userId']} {e['segment']['slug']} {e['at'][11:19]}"
        for e in page["nodes"]
    ]


async def all_pages(api: Api, first: int, **arguments: Any) -> list[Any]:
    """Return the ids of every entry, read page by page."""
    ids: list[Any] = []
    after = None
    while True:
        full_page = await page(api, first=first, after=after, **arguments)
        ids += [node["id"] for node in full_page["nodes"]]
        after = full_page["pageInfo"]["endCursor"]
        if not full_page["pageInfo"]["hasNextPage"]:
            return ids


async def test_order_is_newest_first_then_user_operation_and_slug(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B", "a")
    for user_id in (2, 10):
        for slug in ("A", "a", "B"):
            await insert_past_membership(sql, user_id, slug, joined_at=NOON, left_at=NOON + HOUR)
    await insert_past_membership(sql, 10, "A", joined_at=NOON + HOUR, left_at=NOON + 2 * HOUR)
    assert lines(await page(api)) == [
        "LEFT 10 A 14:00:00",
        "JOINED 10 A 13:00:00",
        "LEFT 10 a 13:00:00",
        "LEFT 10 B 13:00:00",
        "LEFT 10 A 13:00:00",
        "LEFT 2 a 13:00:00",
        "LEFT 2 B 13:00:00",
        "LEFT 2 A 13:00:00",
        "JOINED 10 a 12:00:00",
        "JOINED 10 B 12:00:00",
        "JOINED 10 A 12:00:00",
        "JOINED 2 a 12:00:00",
        "JOINED 2 B 12:00:00",
        "JOINED 2 A 12:00:00",
    ]


async def test_pages_of_any_size_make_up_the_whole_list(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B", "GONE")
    for user_id in (1, 2, 3):
        await insert_past_membership(sql, user_id, "A", joined_at=NOON, left_at=NOON + HOUR)
        await insert_membership(sql, user_id, "B", joined_at=NOON, expires_at=NOON + HOUR)
        await insert_membership(sql, user_id, "GONE", joined_at=NOON)
    await delete_segment_at(sql, "GONE", NOON + HOUR)
    all_ids = [node["id"] for node in (await page(api))["nodes"]]
    assert len(set(all_ids)) == 18
    for first in (1, 2, 5, 17, 18, 100):
        assert await all_pages(api, first) == all_ids


async def test_every_entry_has_a_usable_cursor(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    for user_id in range(1, 6):
        await insert_past_membership(sql, user_id, "A", joined_at=NOON, left_at=NOON + HOUR)
    full_page = await page(api)
    assert full_page["pageInfo"] == {
        "hasNextPage": False,
        "hasPreviousPage": False,
        "startCursor": full_page["edges"][0]["cursor"],
        "endCursor": full_page["edges"][9]["cursor"],
    }
    for position, edge in enumerate(full_page["edges"]):
        rest = await page(api, after=edge["cursor"])
        assert rest["nodes"] == full_page["nodes"][position + 1 :]
        assert rest["pageInfo"]["hasPreviousPage"] is True


async def test_new_entries_between_pages_cause_no_gap_or_repeat(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B")
    for user_id in range(1, 11):
        await update_user_segments(api, user_id, add=["A"])
    before = [node["id"] for node in (await page(api))["nodes"]]

    async def insert_entries() -> None:
        for user_id in range(1, 11):
            await update_user_segments(api, user_id, add=["B"], remove=["A"])

    ids_read, _ = await asyncio.gather(all_pages(api, 1), insert_entries())
    assert len(set(ids_read)) == len(ids_read)
    assert [entry for entry in ids_read if entry in before] == before


async def test_from_is_inclusive_and_to_exclusive(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_past_membership(sql, 1, "A", joined_at=NOON, left_at=NOON + HOUR)
    await insert_past_membership(sql, 1, "A", joined_at=NOON + 2 * HOUR, left_at=NOON + 3 * HOUR)
    left, second = NOON + HOUR, NOON + 2 * HOUR

    async def page_between(since: Any, until: Any) -> list[str]:
        filters = {"from": since and since.isoformat(), "to": until and until.isoformat()}
        return [line.split()[0] + line[-9:] for line in lines(await page(api, **filters))]

    assert await page_between(left, second) == ["LEFT 13:00:00"]
    assert await page_between(left, second + MICROSECOND) == ["JOINED 14:00:00", "LEFT 13:00:00"]
    assert await page_between(left + MICROSECOND, second) == []
    assert await page_between(second, None) == ["LEFT 15:00:00", "JOINED 14:00:00"]
    assert await page_between(None, left) == ["JOINED 12:00:00"]
    assert await page_between(left, left) == []


async def test_from_and_to_filter_unrecorded_leaves(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "GONE")
    await insert_membership(sql, 1, "A", joined_at=NOON, expires_at=NOON + HOUR)
    await insert_membership(sql, 1, "GONE", joined_at=NOON)
    await delete_segment_at(sql, "GONE", NOON + HOUR)
    for since, until, full_page in (
        (NOON + HOUR, NOON + 2 * HOUR, 2),
        (NOON + HOUR + MICROSECOND, NOON + 2 * HOUR, 0),
        (NOON + MICROSECOND, NOON + HOUR, 0),
        (NOON + MICROSECOND, NOON + HOUR + MICROSECOND, 2),
    ):
        filters = {"from": since.isoformat(), "to": until.isoformat()}
        assert len((await page(api, **filters))["nodes"]) == full_page


async def test_from_after_to_is_rejected(api: Api) -> None:
    filters = {"from": "2024-03-01T12:00:01Z", "to": "2024-03-01T12:00:00Z"}
    for query in (HISTORY, OF_USER):
        await update_user_segments(api, 1)
        assert (await api.error(query, **filters))["extensions"] == {
            "code": "BAD_REQUEST",
            "argument": "from",
            "allowed": "a time that is not after `to`",
        }


async def test_slug_matches_every_segment_that_had_it(api: Api) -> None:
    await make_segments(api, "A", "B")
    await update_user_segments(api, 1, add=["A", "B"])
    await delete_segment(api, "A")
    await make_segments(api, "A")
    await update_user_segments(api, 1, add=["A"])
    full_page = (await page(api, slug="A"))["nodes"]
    assert [(e["operation"], e["segment"]["slug"]) for e in full_page] == [
        ("JOINED", "A"),
        ("LEFT", "A"),
        ("JOINED", "A"),
    ]
    assert (await page(api, slug="a"))["nodes"] == []


async def test_user_id_selects_a_user_even_if_deleted(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 1, add=["A"])
    await update_user_segments(api, 2, add=["A"])
    await delete_user(api, 2)
    operations = [e["operation"] for e in (await page(api, userId="2"))["nodes"]]
    assert operations == ["LEFT", "JOINED"]
    assert (await page(api, userId="3"))["nodes"] == []


async def test_every_filter_is_paginated_alike(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B")
    for user_id in (1, 2):
        for slug in ("A", "B"):
            await insert_past_membership(sql, user_id, slug, joined_at=NOON, left_at=NOON + HOUR)
            await insert_membership(
                sql, user_id, slug, joined_at=NOON + 2 * HOUR, expires_at=NOON + 3 * HOUR
            )
    all_entries = (await page(api))["nodes"]
    for selected in ({}, {"userId": "1"}, {"slug": "A"}, {"userId": "1", "slug": "A"}):
        expected = [
            entry["id"]
            for entry in all_entries
            if entry["userId"] == selected.get("userId", entry["userId"])
            and entry["segment"]["slug"] == selected.get("slug", entry["segment"]["slug"])
        ]
        assert len(expected) == 16 // 2 ** len(selected)
        assert await all_pages(api, 3, **selected) == expected


async def test_user_history_equals_history_filtered_by_user(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B")
    for user_id in (1, 2):
        for slug in ("A", "B"):
            await insert_membership(sql, user_id, slug, joined_at=NOON, expires_at=NOON + HOUR)
    all_ids = await page(api, userId="1")
    own = (await api(OF_USER))["user"]["history"]
    assert own["nodes"] == all_ids["nodes"]
    assert own["pageInfo"]["endCursor"] == all_ids["pageInfo"]["endCursor"]
    rest = await api(OF_USER, after=all_ids["edges"][0]["cursor"])
    assert rest["user"]["history"]["nodes"] == all_ids["nodes"][1:]


async def test_null_arguments_are_ignored(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 1, "A")
    filters = dict.fromkeys(("first", "after", "userId", "slug", "from", "to"))
    assert lines(await page(api, **filters)) == ["JOINED 1 A 12:00:00"]


@pytest.mark.parametrize(
    ("argument", "bad_values", "allowed"),
    [("userId", BAD_USER_IDS, USER_ID_ALLOWED), ("slug", BAD_SLUGS, SLUG_ALLOWED)],
)
async def test_invalid_id_or_slug_is_rejected_by_name(
    api: Api, argument: str, bad_values: tuple[str, ...], allowed: str
) -> None:
    for value in bad_values:
        assert (await api.error(HISTORY, **{argument: value}))["extensions"] == {
            "code": "BAD_REQUEST",
            "argument": argument,
            "allowed": allowed,
        }, ascii(value)
