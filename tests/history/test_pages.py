"""`history`: its order, its pages and what selects from it."""

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
    """Entries, short: `JOINED 1 A 12:00:00`."""
    return [
        f"{e['operation']} {e['userId']} {e['segment']['slug']} {e['at'][11:19]}"
        for e in page["nodes"]
    ]


async def all_pages(api: Api, first: int, **arguments: Any) -> list[Any]:
    """The ids of every entry, read page by page."""
    ids: list[Any] = []
    after = None
    while True:
        found = await page(api, first=first, after=after, **arguments)
        ids += [node["id"] for node in found["nodes"]]
        after = found["pageInfo"]["endCursor"]
        if not found["pageInfo"]["hasNextPage"]:
            return ids


async def test_is_newest_first_by_moment_then_user_then_joins_before_leaves_then_slug(
    api: Api, sql: Sql
) -> None:
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


async def test_pages_are_the_whole_list_whatever_their_size(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B", "GONE")
    for user_id in (1, 2, 3):
        await insert_past_membership(sql, user_id, "A", joined_at=NOON, left_at=NOON + HOUR)
        await insert_membership(sql, user_id, "B", joined_at=NOON, expires_at=NOON + HOUR)
        await insert_membership(sql, user_id, "GONE", joined_at=NOON)
    await delete_segment_at(sql, "GONE", NOON + HOUR)
    whole = [node["id"] for node in (await page(api))["nodes"]]
    assert len(set(whole)) == 18
    for first in (1, 2, 5, 17, 18, 100):
        assert await all_pages(api, first) == whole


async def test_any_entry_may_be_continued_from(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    for user_id in range(1, 6):
        await insert_past_membership(sql, user_id, "A", joined_at=NOON, left_at=NOON + HOUR)
    found = await page(api)
    assert found["pageInfo"] == {
        "hasNextPage": False,
        "hasPreviousPage": False,
        "startCursor": found["edges"][0]["cursor"],
        "endCursor": found["edges"][9]["cursor"],
    }
    for position, edge in enumerate(found["edges"]):
        rest = await page(api, after=edge["cursor"])
        assert rest["nodes"] == found["nodes"][position + 1 :]
        assert rest["pageInfo"]["hasPreviousPage"] is True


async def test_rows_that_come_in_between_pages_neither_repeat_nor_hide_older_ones(
    api: Api, sql: Sql
) -> None:
    await make_segments(api, "A", "B")
    for user_id in range(1, 11):
        await update_user_segments(api, user_id, add=["A"])
    before = [node["id"] for node in (await page(api))["nodes"]]

    async def come_in() -> None:
        for user_id in range(1, 11):
            await update_user_segments(api, user_id, add=["B"], remove=["A"])

    read, _ = await asyncio.gather(all_pages(api, 1), come_in())
    assert len(set(read)) == len(read)
    assert [entry for entry in read if entry in before] == before


async def test_from_is_inclusive_and_to_exclusive(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_past_membership(sql, 1, "A", joined_at=NOON, left_at=NOON + HOUR)
    await insert_past_membership(sql, 1, "A", joined_at=NOON + 2 * HOUR, left_at=NOON + 3 * HOUR)
    left, second = NOON + HOUR, NOON + 2 * HOUR

    async def between(since: Any, until: Any) -> list[str]:
        given = {"from": since and since.isoformat(), "to": until and until.isoformat()}
        return [line.split()[0] + line[-9:] for line in lines(await page(api, **given))]

    assert await between(left, second) == ["LEFT 13:00:00"]
    assert await between(left, second + MICROSECOND) == ["JOINED 14:00:00", "LEFT 13:00:00"]
    assert await between(left + MICROSECOND, second) == []
    assert await between(second, None) == ["LEFT 15:00:00", "JOINED 14:00:00"]
    assert await between(None, left) == ["JOINED 12:00:00"]
    assert await between(left, left) == []


async def test_from_and_to_hold_for_leaves_that_are_not_recorded_yet(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "GONE")
    await insert_membership(sql, 1, "A", joined_at=NOON, expires_at=NOON + HOUR)
    await insert_membership(sql, 1, "GONE", joined_at=NOON)
    await delete_segment_at(sql, "GONE", NOON + HOUR)
    for since, until, found in (
        (NOON + HOUR, NOON + 2 * HOUR, 2),
        (NOON + HOUR + MICROSECOND, NOON + 2 * HOUR, 0),
        (NOON + MICROSECOND, NOON + HOUR, 0),
        (NOON + MICROSECOND, NOON + HOUR + MICROSECOND, 2),
    ):
        given = {"from": since.isoformat(), "to": until.isoformat()}
        assert len((await page(api, **given))["nodes"]) == found


async def test_from_after_to_is_refused(api: Api) -> None:
    given = {"from": "2024-03-01T12:00:01Z", "to": "2024-03-01T12:00:00Z"}
    for query in (HISTORY, OF_USER):
        await update_user_segments(api, 1)
        assert (await api.error(query, **given))["extensions"] == {
            "code": "BAD_REQUEST",
            "argument": "from",
            "allowed": "a time before `to`",
        }


async def test_slug_matches_every_segment_that_bore_it(api: Api) -> None:
    await make_segments(api, "A", "B")
    await update_user_segments(api, 1, add=["A", "B"])
    await delete_segment(api, "A")
    await make_segments(api, "A")
    await update_user_segments(api, 1, add=["A"])
    found = (await page(api, slug="A"))["nodes"]
    assert [(e["operation"], e["segment"]["slug"]) for e in found] == [
        ("JOINED", "A"),
        ("LEFT", "A"),
        ("JOINED", "A"),
    ]
    assert (await page(api, slug="a"))["nodes"] == []


async def test_user_id_selects_one_user_and_also_a_deleted_one(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 1, add=["A"])
    await update_user_segments(api, 2, add=["A"])
    await delete_user(api, 2)
    operations = [e["operation"] for e in (await page(api, userId="2"))["nodes"]]
    assert operations == ["LEFT", "JOINED"]
    assert (await page(api, userId="3"))["nodes"] == []


async def test_every_way_to_select_pages_alike(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B")
    for user_id in (1, 2):
        for slug in ("A", "B"):
            await insert_past_membership(sql, user_id, slug, joined_at=NOON, left_at=NOON + HOUR)
            await insert_membership(
                sql, user_id, slug, joined_at=NOON + 2 * HOUR, expires_at=NOON + 3 * HOUR
            )
    everything = (await page(api))["nodes"]
    for selected in ({}, {"userId": "1"}, {"slug": "A"}, {"userId": "1", "slug": "A"}):
        expected = [
            entry["id"]
            for entry in everything
            if entry["userId"] == selected.get("userId", entry["userId"])
            and entry["segment"]["slug"] == selected.get("slug", entry["segment"]["slug"])
        ]
        assert len(expected) == 16 // 2 ** len(selected)
        assert await all_pages(api, 3, **selected) == expected


async def test_a_users_own_history_is_the_same_list_and_takes_the_same_cursors(
    api: Api, sql: Sql
) -> None:
    await make_segments(api, "A", "B")
    for user_id in (1, 2):
        for slug in ("A", "B"):
            await insert_membership(sql, user_id, slug, joined_at=NOON, expires_at=NOON + HOUR)
    whole = await page(api, userId="1")
    own = (await api(OF_USER))["user"]["history"]
    assert own["nodes"] == whole["nodes"]
    assert own["pageInfo"]["endCursor"] == whole["pageInfo"]["endCursor"]
    rest = await api(OF_USER, after=whole["edges"][0]["cursor"])
    assert rest["user"]["history"]["nodes"] == whole["nodes"][1:]


async def test_nulls_are_as_if_not_given(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 1, "A")
    given = dict.fromkeys(("first", "after", "userId", "slug", "from", "to"))
    assert lines(await page(api, **given)) == ["JOINED 1 A 12:00:00"]


@pytest.mark.parametrize(
    ("argument", "bad_values", "allowed"),
    [("userId", BAD_USER_IDS, USER_ID_ALLOWED), ("slug", BAD_SLUGS, SLUG_ALLOWED)],
)
async def test_what_is_no_id_or_slug_is_refused_by_name(
    api: Api, argument: str, bad_values: tuple[str, ...], allowed: str
) -> None:
    for value in bad_values:
        assert (await api.error(HISTORY, **{argument: value}))["extensions"] == {
            "code": "BAD_REQUEST",
            "argument": argument,
            "allowed": allowed,
        }, ascii(value)
