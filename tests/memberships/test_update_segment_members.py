"""`updateSegmentMembers` adds and removes many users of one segment in one transaction."""

from datetime import timedelta
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.memberships import expiry
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.memberships.records import Expiry, MemberLists
from segmentql.memberships.segment_members import update_segment_members as update_members
from tests.back_dating import HOUR, NOON, all_rows, insert_membership
from tests.conftest import Api, Sql, recorded_statements
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
EARLY, LATE = "2030-01-01T00:00:00.000000Z", "2031-01-01T00:00:00.000000Z"


async def members(sql: Sql) -> dict[int, tuple[str, str | None]]:
    """Return the cause and the end of every stored membership, by user id."""
    rows = await sql.fetch(
        """
        SELECT user_id, cause::text,
            to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        FROM memberships ORDER BY user_id
        """
    )
    return {user_id: (cause, end) for user_id, cause, end in rows}


async def excluded_users(sql: Sql) -> list[int]:
    return [row[0] for row in await sql.fetch("SELECT user_id FROM exclusions ORDER BY 1")]


async def history(sql: Sql) -> list[tuple[int, str, str]]:
    rows = await sql.fetch(
        "SELECT user_id, operation::text, cause::text FROM history ORDER BY at, user_id, operation"
    )
    return [tuple(row) for row in rows]


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


@pytest.mark.parametrize(
    ("on_existing", "requested", "ends"),
    [
        ("EXTEND", EARLY, {1: None, 2: EARLY, 3: LATE}),
        ("EXTEND", LATE, {1: None, 2: LATE, 3: LATE}),
        ("EXTEND", None, {1: None, 2: None, 3: None}),
        ("REPLACE", EARLY, {1: EARLY, 2: EARLY, 3: EARLY}),
        ("REPLACE", None, {1: None, 2: None, 3: None}),
        ("KEEP", EARLY, {1: None, 2: EARLY, 3: LATE}),
        ("KEEP", None, {1: None, 2: EARLY, 3: LATE}),
    ],
)
async def test_on_existing_combines_the_old_and_the_requested_end(
    api: Api, sql: Sql, on_existing: str, requested: str | None, ends: dict[int, str | None]
) -> None:
    await make_segments(api, "A")
    old_ends: dict[int, str | None] = {1: None, 2: EARLY, 3: LATE}
    for user_id, end in old_ends.items():
        await update_user_segments(api, user_id, add=["A"], expiresAt=end)
    before = await history(sql)
    payload = await update_segment_members(
        api, "A", add=[3, 2, 1], expiresAt=requested, onExisting=on_existing
    )
    changed = sum(ends[user_id] != end for user_id, end in old_ends.items())
    expected = {"END_CHANGED": changed, "ALREADY_IN": 3 - changed}
    assert outcome_counts(payload) == {name: n for name, n in expected.items() if n}
    assert {user_id: end for user_id, (_, end) in (await members(sql)).items()} == ends
    assert await history(sql) == before


@pytest.mark.parametrize("on_existing", ["EXTEND", "REPLACE", "KEEP"])
async def test_expired_member_joins_again(api: Api, sql: Sql, on_existing: str) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 7, "A", joined_at=NOON, expires_at=NOON + HOUR)
    payload = await update_segment_members(
        api, "A", add=[7], ttlSeconds=3600, onExisting=on_existing
    )
    assert outcome_counts(payload) == {"JOINED": 1}
    assert await history(sql) == [
        (7, "JOINED", "MANUAL"),
        (7, "LEFT", "TTL"),
        (7, "JOINED", "MANUAL"),
    ]
    left_at = await sql.fetchval("SELECT at FROM history WHERE operation = 'LEFT'")
    assert left_at == NOON + HOUR
    lives = await sql.fetchval("SELECT expires_at - joined_at FROM memberships")
    assert lives == HOUR
    assert await history_inconsistencies(sql) == {}


async def test_ttl_counts_from_the_join_or_the_change(
    api: Api, sql: Sql, database: Database
) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 7, "A", joined_at=NOON)
    await update_segment_members(api, "A", add=[7, 8], ttlSeconds=3600, onExisting="REPLACE")
    rows = await sql.fetch(
        "SELECT expires_at - updated_at, joined_at = updated_at FROM memberships"
    )
    assert sorted(map(tuple, rows)) == [(HOUR, False), (HOUR, True)]
    async with database.read() as session:
        seconds = await expiry.seconds_to_next(session)
    assert seconds == pytest.approx(3600, abs=60)


async def test_soon_expiring_members_are_announced_to_the_workers(
    sql: Sql, database: Database, sent: list[Any], api: Api
) -> None:
    await make_segments(api, "A")
    for ttl, count in ((timedelta(seconds=5), 1), (None, 0), (timedelta(days=3000), 0)):
        sent.clear()
        await database.transaction(
            lambda session, ttl=ttl: update_members(  # type: ignore[misc]
                session, slug="A", lists=MemberLists(add=[1, 2]), expiry=Expiry(ttl)
            )
        )
        await update_segment_members(api, "A", remove=[1, 2])
        assert [message.job for message in sent] == [EXPIRE_DUE_MEMBERSHIPS] * count


@pytest.mark.parametrize("on_existing", ["EXTEND", "REPLACE", "KEEP"])
async def test_member_of_a_rollout_becomes_manual_except_with_keep(
    api: Api, sql: Sql, on_existing: str
) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 7, "A", joined_at=NOON, cause="ROLLOUT")
    await insert_membership(sql, 8, "A", joined_at=NOON, cause="ROLLOUT")
    await update_user_segments(api, 8, add=["A"], expiresAt=LATE, onExisting="KEEP")
    payload = await update_segment_members(api, "A", add=[7, 8], onExisting=on_existing)
    assert outcome_counts(payload) == {"ALREADY_IN": 2}
    cause = "ROLLOUT" if on_existing == "KEEP" else "MANUAL"
    assert await members(sql) == {7: (cause, None), 8: (cause, None)}
    assert await sql.fetchval("SELECT every(joined_at = $1) FROM memberships", NOON)
    assert [operation for _, operation, _ in await history(sql)] == ["JOINED", "JOINED"]


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [({"onExcluded": "SKIP"}, "EXCLUDED"), ({"onExcluded": "ADMIT"}, "JOINED"), ({}, "JOINED")],
)
async def test_on_excluded_skips_or_admits_excluded_users(
    api: Api, sql: Sql, fields: dict[str, Any], outcome: str
) -> None:
    await make_segments(api, "A", "B")
    await update_user_segments(api, 7, remove=["A", "B"])
    before = await all_rows(sql)
    payload = await update_segment_members(api, "A", add=[7], **fields)
    assert outcome_counts(payload) == {outcome: 1}
    if outcome == "EXCLUDED":
        assert await all_rows(sql) == before
    else:
        rows = await sql.fetch("SELECT user_id, segment_id FROM exclusions")
        assert [tuple(row) for row in rows] == [(7, 2)]
        assert await members(sql) == {7: ("MANUAL", None)}
        last = await sql.fetchval("SELECT operation FROM exclusion_log ORDER BY id DESC LIMIT 1")
        assert last == "ADMITTED"


async def test_keep_also_admits_excluded_users(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, remove=["A"])
    payload = await update_segment_members(api, "A", add=[7], onExisting="KEEP")
    assert outcome_counts(payload) == {"JOINED": 1}
    assert await excluded_users(sql) == []


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
