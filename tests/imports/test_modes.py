"""The modes ADD and REMOVE have the documented outcome for each kind of user."""

from datetime import timedelta
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.rollouts.actors import advance_rollout
from tests.conftest import Api, Sql
from tests.explain.operations import explain
from tests.imports.lists import Imports, counts, lines_of_result
from tests.operations import (
    create_user,
    make_segments,
    parse_timestamp,
    update_user_segments,
)
from tests.rollouts.helpers import (
    excluded,
    expected_sample,
    members,
    membership_ids,
    set_plan,
    store_users,
)
from tests.timeline import HOUR, add_membership, database_now, history_inconsistencies, make_segment

DAY = timedelta(days=1)


async def ends(sql: Sql) -> dict[int, float | None]:
    """Return the hours from now until each active membership of segment 1 ends."""
    rows = await sql.fetch(
        """
        SELECT user_id, round(extract(epoch FROM expires_at - now()) / 3600) AS hours
        FROM memberships WHERE segment_id = 1 AND (expires_at IS NULL OR expires_at > now())
        """
    )
    return {row["user_id"]: None if row["hours"] is None else float(row["hours"]) for row in rows}


@pytest.mark.parametrize(
    ("on_existing", "expected_counts", "expected_ends"),
    [
        ("EXTEND", {"ALREADY_IN": 2, "END_CHANGED": 1, "JOINED": 2}, [48, 72, None, 48, 48]),
        ("REPLACE", {"END_CHANGED": 3, "JOINED": 2}, [48, 48, 48, 48, 48]),
        ("KEEP", {"ALREADY_IN": 3, "JOINED": 2}, [24, 72, None, 48, 48]),
    ],
)
@pytest.mark.parametrize("ends_by", ["ttl", "time"])
async def test_ends_follow_on_existing(
    *,
    imports: Imports,
    sql: Sql,
    on_existing: str,
    expected_counts: dict[str, int],
    expected_ends: list[float | None],
    ends_by: str,
) -> None:
    segment_id = await make_segment(sql, "a")
    await add_membership(sql, 1, segment_id, ends_in=DAY)
    await add_membership(sql, 2, segment_id, ends_in=3 * DAY)
    await add_membership(sql, 3, segment_id)
    await add_membership(sql, 4, segment_id, ends_in=-HOUR)
    end: dict[str, Any] = {"ttlSeconds": 48 * 3600}
    if ends_by == "time":
        end = {"expiresAt": (await database_now(sql) + 2 * DAY).isoformat()}
    finished = await imports.run(b"1\n2\n3\n4\n5\n", onExisting=on_existing, **end)
    assert finished["status"] == "COMPLETED"
    assert counts(finished) == expected_counts
    assert await ends(sql) == dict(enumerate(expected_ends, start=1))
    assert await history_inconsistencies(sql) == {}


async def test_expired_member_rejoins_with_a_new_membership(imports: Imports, sql: Sql) -> None:
    segment_id = await make_segment(sql, "a")
    old = await add_membership(sql, 4, segment_id, ends_in=-HOUR)
    assert counts(await imports.run(b"4\n")) == {"JOINED": 1}
    assert (await membership_ids(sql, segment_id))[4] != old["id"]
    rows = await sql.fetch("SELECT operation::text, import_id, at FROM history ORDER BY at")
    assert [(row["operation"], row["import_id"]) for row in rows] == [
        ("JOINED", None),
        ("LEFT", None),
        ("JOINED", 1),
    ]
    assert rows[1]["at"] == old["expires_at"]


@pytest.mark.parametrize(("on_existing", "cause"), [("EXTEND", "MANUAL"), ("KEEP", "ROLLOUT")])
async def test_member_of_a_rollout_becomes_a_member_by_hand(
    imports: Imports, sql: Sql, database: Database, on_existing: str, cause: str
) -> None:
    segment_id = await make_segment(sql, "a")
    await store_users(sql, 2)
    await set_plan(database, "a", 100)
    await advance_rollout(database, segment_id)
    before = await membership_ids(sql, segment_id)
    finished = await imports.run(b"1\n", onExisting=on_existing)
    assert counts(finished) == {"ALREADY_IN": 1}
    assert await members(sql, segment_id) == {1: cause, 2: "ROLLOUT"}
    assert await membership_ids(sql, segment_id) == before


@pytest.mark.parametrize(
    ("on_excluded", "expected_counts", "still_excluded"),
    [("SKIP", {"EXCLUDED": 1, "JOINED": 1}, {1}), ("ADMIT", {"JOINED": 2}, set())],
)
async def test_excluded_users_follow_on_excluded(
    *,
    api: Api,
    imports: Imports,
    sql: Sql,
    on_excluded: str,
    expected_counts: dict[str, int],
    still_excluded: set[int],
) -> None:
    await make_segments(api, "a")
    await update_user_segments(api, 1, remove=["a"])
    finished = await imports.run(b"1\n2\n", onExcluded=on_excluded)
    assert counts(finished) == expected_counts
    assert await excluded(sql, 1) == still_excluded
    assert set(await members(sql, 1)) == {1, 2} - still_excluded


async def test_unknown_users_are_skipped_on_request(api: Api, imports: Imports, sql: Sql) -> None:
    await make_segments(api, "a")
    await create_user(api, id="1")
    finished = await imports.run(b"1\n2\n2\n", onUnknownUser="SKIP")
    assert counts(finished) == {"JOINED": 1, "UNKNOWN_USER": 1, "DUPLICATE": 1}
    assert await sql.fetchval("SELECT array_agg(id) FROM users") == [1]
    assert await lines_of_result(finished) == [
        "1,1,1,JOINED,",
        "2,2,2,UNKNOWN_USER,",
        "3,2,2,DUPLICATE,",
    ]


@pytest.mark.parametrize("on_unknown_user", ["STORE", "SKIP"])
async def test_keys_name_stored_and_new_users(
    api: Api, imports: Imports, sql: Sql, on_unknown_user: str
) -> None:
    await make_segments(api, "a")
    await create_user(api, id="7", key="known")
    finished = await imports.run(
        b"known\nnew\nnew\n Known\n", identity="KEY", onUnknownUser=on_unknown_user
    )
    assert finished["status"] == "COMPLETED"
    stored = {row["key"]: row["id"] for row in await sql.fetch("SELECT id, key FROM users")}
    assert stored["known"] == 7
    if on_unknown_user == "SKIP":
        assert counts(finished) == {"JOINED": 1, "UNKNOWN_USER": 2, "DUPLICATE": 1}
        assert set(stored) == {"known"}
        assert set(await members(sql, 1)) == {7}
        return
    assert counts(finished) == {"JOINED": 3, "DUPLICATE": 1}
    # Keys are compared byte by byte.
    assert set(stored) == {"known", "new", " Known"}
    assert set(await members(sql, 1)) == set(stored.values())
    assert await lines_of_result(finished) == [
        "1,known,7,JOINED,",
        f"2,new,{stored['new']},JOINED,",
        "3,new,,DUPLICATE,",
        f"4, Known,{stored[' Known']},JOINED,",
    ]


@pytest.mark.parametrize("exclude", [True, False])
async def test_removed_users_are_excluded_unless_asked_not_to(
    api: Api, imports: Imports, sql: Sql, *, exclude: bool
) -> None:
    await make_segments(api, "a")
    await update_user_segments(api, 1, add=["a"])
    await create_user(api, id="2")
    await add_membership(sql, 4, 1, ends_in=-HOUR)
    finished = await imports.run(b"1\n2\n3\n4\n1\n", mode="REMOVE", exclude=exclude)
    assert counts(finished) == {"LEFT": 1, "NOT_IN": 2, "UNKNOWN_USER": 1, "DUPLICATE": 1}
    assert finished["removals"] == 1
    assert await members(sql, 1) == {}
    assert await excluded(sql, 1) == ({1, 2, 4} if exclude else set())
    assert await sql.fetchval("SELECT count(*) FROM users") == 3
    left = await sql.fetch(
        "SELECT user_id, cause::text, import_id FROM history WHERE operation = 'LEFT'"
    )
    assert ({tuple(row) for row in left} - {(4, "TTL", None)}) == {(1, "MANUAL", 1)}
    assert {row["import_id"] for row in await sql.fetch("SELECT import_id FROM exclusions")} <= {1}


async def test_removal_without_exclusion_keeps_the_finished_sample(
    api: Api, imports: Imports, sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "a")
    users = set(await store_users(sql, 20))
    for user_id in (3, 4, 5, 6, 7, 8):
        await add_membership(sql, user_id, segment_id, ends_in=DAY)
    end = await database_now(sql) + 2 * DAY
    await set_plan(database, "a", 50, expires_at=end)
    await advance_rollout(database, segment_id)
    sample = expected_sample(segment_id, users, 50)
    before = await membership_ids(sql, segment_id)
    assert sample & {3, 4, 5, 6, 7, 8}
    assert {3, 4, 5, 6, 7, 8} - sample
    listed = range(1, 11)
    data = "".join(f"{user_id}\n" for user_id in listed).encode()
    finished = await imports.run(data, mode="REMOVE", exclude=False)
    left = {3, 4, 5, 6, 7, 8} - sample
    assert counts(finished) == {
        "ALREADY_IN": len(sample & set(listed)),
        "LEFT": len(left),
        "NOT_IN": len(set(listed) - sample - left),
    }
    assert await members(sql, segment_id) == dict.fromkeys(sorted(sample), "ROLLOUT")
    after = await membership_ids(sql, segment_id)
    assert after == {user_id: before[user_id] for user_id in sample}
    kept = await sql.fetch("SELECT DISTINCT expires_at, actor, import_id FROM memberships")
    assert [tuple(row) for row in kept] == [(end, None, None)]
    assert await excluded(sql, segment_id) == set()
    assert await history_inconsistencies(sql) == {}
    for user_id in listed:
        explained = await explain(api, user_id, "a")
        assert explained["isIn"] == (user_id in sample)
        if user_id in sample:
            assert explained["reason"] == "IN_SAMPLE"


async def test_kept_member_has_the_end_of_the_rollout_in_the_api(
    api: Api, imports: Imports, sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "a")
    await store_users(sql, 1)
    await add_membership(sql, 1, segment_id)
    end = await database_now(sql) + 2 * DAY
    await set_plan(database, "a", 100, expires_at=end)
    await advance_rollout(database, segment_id)
    assert counts(await imports.run(b"1\n", mode="REMOVE", exclude=False)) == {"ALREADY_IN": 1}
    read = await api("{ user(id: 1) { memberships { cause expiresAt } } }")
    (membership,) = read["user"]["memberships"]
    assert membership["cause"] == "ROLLOUT"
    assert parse_timestamp(membership["expiresAt"]) == end
