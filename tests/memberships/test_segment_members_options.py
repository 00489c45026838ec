"""The options of `updateSegmentMembers`: `ttlSeconds`, `expiresAt`, `onExisting`, `onExcluded`."""

from datetime import timedelta
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.memberships import expiry
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.memberships.records import Expiry, MemberLists
from segmentql.memberships.segment_members import update_segment_members as update_members
from tests.back_dating import HOUR, NOON, all_rows, insert_membership
from tests.conftest import Api, Sql
from tests.memberships.stored_members import EARLY, LATE, excluded_users, history, members
from tests.operations import (
    make_segments,
    outcome_counts,
    update_segment_members,
    update_user_segments,
)
from tests.timeline import history_inconsistencies


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
