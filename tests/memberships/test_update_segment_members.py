"""`updateSegmentMembers` adds and removes many users of one segment in one transaction."""

from typing import Any

from segmentql.adapters.database import Database
from segmentql.memberships.records import MemberLists
from segmentql.memberships.segment_members import update_segment_members as update_members
from tests.back_dating import HOUR, NOON, all_rows, insert_membership
from tests.conftest import Api, Sql, recorded_statements
from tests.memberships.stored_members import EARLY, LATE, excluded_users, history, members
from tests.operations import (
    create_user,
    make_segments,
    outcome_counts,
    set_user_key,
    update_segment_members,
    update_user_segments,
)
from tests.rollouts.graphql_client import set_rollout
from tests.timeline import history_inconsistencies

FIRST_KEY_ID = 100_000_000_000_000


async def test_users_are_added_removed_and_stored(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B")
    await update_user_segments(api, 1, add=["A", "B"])
    await update_user_segments(api, 2)
    payload = await update_segment_members(api, "A", add=[3, 2], remove=[1])
    assert payload == {
        "segment": {"id": "seg_1", "slug": "A"},
        "counts": [{"outcome": "JOINED", "count": 2}, {"outcome": "LEFT", "count": 1}],
        "errors": [],
    }
    rows = await sql.fetch("SELECT user_id, segment_id FROM memberships ORDER BY 1, 2")
    assert [tuple(row) for row in rows] == [(1, 2), (2, 1), (3, 1)]
    assert (await history(sql))[2:] == [
        (1, "LEFT", "MANUAL"),
        (2, "JOINED", "MANUAL"),
        (3, "JOINED", "MANUAL"),
    ]
    assert await history_inconsistencies(sql) == {}


async def test_every_outcome_is_counted(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await update_segment_members(api, "A", add=[1, 2, 3], remove=[])
    await update_segment_members(api, "A", add=[4], expiresAt=EARLY)
    await insert_membership(sql, 5, "A", joined_at=NOON, expires_at=NOON + HOUR)
    await insert_membership(sql, 6, "A", joined_at=NOON, expires_at=NOON + HOUR)
    await update_user_segments(api, 7, remove=["A"])
    await create_user(api, id="8")
    payload = await update_segment_members(
        api,
        "A",
        add=[1, 4, 5, 7, 9, 9, 1],
        remove=[2, 3, 6, 8, 10, 10, 2, 8],
        expiresAt=LATE,
        onExcluded="SKIP",
    )
    assert payload["counts"] == [
        {"outcome": "JOINED", "count": 2},  # 5, 9
        {"outcome": "END_CHANGED", "count": 1},  # 4
        {"outcome": "ALREADY_IN", "count": 1},  # 1
        {"outcome": "LEFT", "count": 2},  # 2, 3
        {"outcome": "NOT_IN", "count": 2},  # 6, 8
        {"outcome": "DUPLICATE", "count": 5},
        {"outcome": "EXCLUDED", "count": 1},  # 7
        {"outcome": "UNKNOWN_USER", "count": 1},  # 10
    ]
    assert await members(sql) == {
        1: ("MANUAL", None),
        4: ("MANUAL", LATE),
        5: ("MANUAL", LATE),
        9: ("MANUAL", LATE),
    }
    assert await excluded_users(sql) == [2, 3, 6, 7, 8]
    assert await history_inconsistencies(sql) == {}


async def test_users_are_named_by_id_and_by_key(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await create_user(api, id="1", key="one")
    await create_user(api, id="2", key="two")
    await update_segment_members(api, "A", add=[2])
    payload = await update_segment_members(
        api,
        "A",
        add=[1, 3],
        addKeys=["new", "one", "new"],  # "one" is user 1
        remove=[2],
        removeKeys=["two", "unknown", "unknown"],
    )
    assert outcome_counts(payload) == {
        "JOINED": 3,
        "LEFT": 1,
        "DUPLICATE": 4,
        "UNKNOWN_USER": 1,
    }
    assert list(await members(sql)) == [1, 3, FIRST_KEY_ID]
    rows = await sql.fetch("SELECT id, key FROM users ORDER BY id")
    assert [tuple(row) for row in rows] == [
        (1, "one"),
        (2, "two"),
        (3, None),
        (FIRST_KEY_ID, "new"),
    ]
    again = await update_segment_members(api, "A", addKeys=["new"], removeKeys=["one"])
    assert outcome_counts(again) == {"ALREADY_IN": 1, "LEFT": 1}


async def test_new_key_gets_no_id_of_a_user_in_the_lists(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    payload = await update_segment_members(
        api, "A", add=[FIRST_KEY_ID], remove=[FIRST_KEY_ID + 2], addKeys=["a", "b"]
    )
    assert outcome_counts(payload) == {"JOINED": 3, "UNKNOWN_USER": 1}
    rows = await sql.fetch("SELECT id, key FROM users ORDER BY id")
    assert [row["key"] for row in rows] == [None, "a", "b"]
    assert len(await members(sql)) == 3


async def test_empty_lists_change_nothing(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    before = await all_rows(sql)
    lists: tuple[dict[str, Any], ...] = (
        {},
        {"add": None, "remove": None, "addKeys": None, "removeKeys": None},
        {"remove": [7], "removeKeys": ["unknown"]},
    )
    for fields in lists:
        payload = await update_segment_members(api, "A", **fields)
        assert payload["segment"]["slug"] == "A"
        assert payload["errors"] == []
        assert await all_rows(sql) == before


async def test_new_user_joins_by_hand_and_the_other_rollouts(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B")
    for slug in ("A", "B"):
        assert (await set_rollout(api, {"percent": 100}, slug))["errors"] == []
    payload = await update_segment_members(api, "A", add=[7], addKeys=["k"], ttlSeconds=60)
    assert outcome_counts(payload) == {"JOINED": 2}
    rows = await sql.fetch(
        "SELECT user_id, segment_id, cause::text, expires_at IS NULL FROM memberships ORDER BY 1, 2"
    )
    assert [tuple(row) for row in rows] == [
        (user_id, segment_id, cause, cause == "ROLLOUT")
        for user_id in (7, FIRST_KEY_ID)
        for segment_id, cause in ((1, "MANUAL"), (2, "ROLLOUT"))
    ]
    assert await history_inconsistencies(sql) == {}


async def test_removed_users_are_not_stored(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    assert (await set_rollout(api, {"percent": 100}, "A"))["errors"] == []
    payload = await update_segment_members(api, "A", remove=[7], removeKeys=["k"])
    assert outcome_counts(payload) == {"UNKNOWN_USER": 2}
    assert await sql.fetchval("SELECT count(*) FROM users") == 0
    assert await excluded_users(sql) == []


async def test_key_of_a_deleted_user_is_stored_under_a_new_id(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await update_segment_members(api, "A", addKeys=["k"])
    await sql.execute("DELETE FROM memberships; DELETE FROM users")
    await update_segment_members(api, "A", addKeys=["k"])
    assert await sql.fetchval("SELECT id FROM users") == FIRST_KEY_ID + 1


async def test_key_that_was_set_later_names_the_user(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await update_segment_members(api, "A", add=[5])
    await set_user_key(api, 5, "five")
    payload = await update_segment_members(api, "A", addKeys=["five"])
    assert outcome_counts(payload) == {"ALREADY_IN": 1}
    assert list(await members(sql)) == [5]


async def test_thousand_users_are_accepted(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    ids = list(range(1, 501))
    keys = [f"k{number}" for number in range(500)]
    payload = await update_segment_members(api, "A", add=ids, addKeys=keys, ttlSeconds=60)
    assert outcome_counts(payload) == {"JOINED": 1000}
    payload = await update_segment_members(api, "A", remove=ids, removeKeys=keys)
    assert outcome_counts(payload) == {"LEFT": 1000}
    assert await sql.fetchval("SELECT count(*) FROM history") == 2000
    assert await sql.fetchval("SELECT count(*) FROM exclusions") == 1000
    assert await history_inconsistencies(sql) == {}


async def test_change_takes_five_statements_for_any_number_of_users(
    api: Api, database: Database
) -> None:
    await make_segments(api, "A")
    for count in (1, 200):
        lists = MemberLists(
            range(1, count + 1), range(1001, 1001 + count), [f"k{n}" for n in range(count)], ["r"]
        )
        await update_segment_members(api, "A", add=list(lists.remove))
        with recorded_statements() as statements:
            await database.transaction(
                lambda session, lists=lists: update_members(session, slug="A", lists=lists)  # type: ignore[misc]
            )
        assert len(statements) == 5
