"""REPLACE makes the list the members by hand, and undoes no change since its plan."""

from datetime import timedelta
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.imports.actors import advance_import
from segmentql.rollouts.actors import advance_rollout
from tests.conftest import Api, Sql
from tests.explain.operations import explain
from tests.imports.lists import APPLY, Imports, counts, id_list, lines_of_result
from tests.operations import (
    create_user,
    delete_user,
    make_segments,
    set_user_key,
    update_user_segments,
)
from tests.rollouts.helpers import (
    cancel,
    excluded,
    expected_sample,
    members,
    set_plan,
    store_users,
)
from tests.timeline import HOUR, add_membership, history_inconsistencies, make_segment

DAY = timedelta(days=1)


async def hold(imports: Imports, data: bytes, **fields: Any) -> Any:
    """Read a list as a dry run, so that its plan is made; return the import."""
    validated = await imports.run(data, mode="REPLACE", dryRun=True, **fields)
    assert validated["status"] == "VALIDATED"
    return validated


async def apply(imports: Imports, record: Any, **fields: Any) -> Any:
    payload = await imports.send(APPLY, id=record["id"], **fields)
    assert payload["errors"] == []
    await imports.work(record["id"])
    return await imports.read(record["id"])


async def test_members_who_are_not_in_the_list_leave(api: Api, imports: Imports, sql: Sql) -> None:
    await make_segments(api, "a", "b")
    for user_id in (1, 2, 3):
        await update_user_segments(api, user_id, add=["a", "b"])
    await add_membership(sql, 4, 1, ends_in=-HOUR)
    finished = await imports.run(b"2\n5\n", mode="REPLACE")
    assert finished["status"] == "COMPLETED"
    assert counts(finished) == {"ALREADY_IN": 1, "JOINED": 1}
    assert finished["removals"] == 2
    assert await members(sql, 1) == {2: "MANUAL", 5: "MANUAL"}
    assert set(await members(sql, 2)) == {1, 2, 3}
    assert await excluded(sql, 1) == set()
    left = await sql.fetch(
        "SELECT user_id, cause::text, import_id FROM history"
        " WHERE operation = 'LEFT' AND user_id <> 4 ORDER BY user_id"
    )
    assert [tuple(row) for row in left] == [(1, "MANUAL", 1), (3, "MANUAL", 1)]
    assert await lines_of_result(finished) == ["1,2,2,ALREADY_IN,", "2,5,5,JOINED,"]
    assert await history_inconsistencies(sql) == {}


async def test_members_of_the_rollout_stay_and_sampled_members_return_to_it(
    api: Api, imports: Imports, sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "a")
    users = set(await store_users(sql, 30))
    by_hand = set(range(1, 16))
    for user_id in by_hand:
        await add_membership(sql, user_id, segment_id)
    await set_plan(database, "a", 50)
    await advance_rollout(database, segment_id)
    sample = expected_sample(segment_id, users, 50)
    listed = {1, 2, 3, 29, 30}
    finished = await imports.run(id_list(listed), mode="REPLACE")
    assert await members(sql, segment_id) == {
        user_id: "MANUAL" if user_id in listed else "ROLLOUT" for user_id in sorted(listed | sample)
    }
    already = len(listed & (by_hand | sample))
    assert counts(finished) == {
        outcome: number
        for outcome, number in (("ALREADY_IN", already), ("JOINED", len(listed) - already))
        if number
    }
    assert finished["removals"] == len(by_hand - listed - sample)
    assert await excluded(sql, segment_id) == set()
    assert await history_inconsistencies(sql) == {}
    for user_id in sorted(by_hand - listed):
        explained = await explain(api, user_id, "a")
        assert explained["isIn"] == (user_id in sample)
        if user_id in sample:
            assert explained["reason"] == "IN_SAMPLE"


async def test_sample_of_a_cancelled_rollout_keeps_nobody(
    imports: Imports, sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "a")
    await store_users(sql, 3)
    await add_membership(sql, 1, segment_id)
    await set_plan(database, "a", 100)
    await advance_rollout(database, segment_id)
    await cancel(database, "a")
    finished = await imports.run(b"2\n", mode="REPLACE")
    assert finished["removals"] == 1
    assert await members(sql, segment_id) == {2: "MANUAL", 3: "ROLLOUT"}


async def test_changes_by_hand_since_the_plan_stay(api: Api, imports: Imports, sql: Sql) -> None:
    await make_segments(api, "a")
    for user_id in (1, 2, 3, 4, 5):
        await update_user_segments(api, user_id, add=["a"], ttlSeconds=3600)
    validated = await hold(imports, b"9\n")
    assert (validated["removals"], counts(validated)) == (5, {"JOINED": 1})
    await update_user_segments(api, 6, add=["a"])  # joins
    await update_user_segments(api, 2, add=["a"])  # gets another end
    await update_user_segments(api, 3, remove=["a"])
    await update_user_segments(api, 4, remove=["a"])
    await update_user_segments(api, 4, add=["a"])  # has another membership
    await delete_user(api, 5)
    finished = await apply(imports, validated)
    assert (finished["removals"], finished["rows"]) == (1, 1)
    # Planned removals are no rows of the file, so a skipped one has no outcome.
    assert counts(finished) == {"JOINED": 1}
    assert await lines_of_result(finished) == ["1,9,9,JOINED,"]
    assert set(await members(sql, 1)) == {2, 4, 6, 9}
    assert await excluded(sql, 1) == {3}
    assert await history_inconsistencies(sql) == {}


async def test_listed_user_who_was_removed_by_hand_since_the_plan_stays_out(
    api: Api, imports: Imports, sql: Sql
) -> None:
    await make_segments(api, "a")
    await update_user_segments(api, 1, add=["a"])
    validated = await hold(imports, b"1\n2\n")
    await update_user_segments(api, 1, remove=["a"])
    finished = await apply(imports, validated)
    assert counts(finished) == {"EXCLUDED": 1, "JOINED": 1}
    assert set(await members(sql, 1)) == {2}


async def test_member_who_gets_a_key_of_the_list_after_the_plan_stays(
    api: Api, imports: Imports, sql: Sql
) -> None:
    await make_segments(api, "a")
    for user_id in (1, 2):
        await update_user_segments(api, user_id, add=["a"])
    validated = await hold(imports, b"one\nnew\n", identity="KEY")
    assert (validated["removals"], counts(validated)) == (2, {"JOINED": 2})
    await set_user_key(api, 1, "one")
    finished = await apply(imports, validated)
    assert counts(finished) == {"ALREADY_IN": 1, "JOINED": 1}
    assert finished["removals"] == 1
    new_id = await sql.fetchval("SELECT id FROM users WHERE key = 'new'")
    assert set(await members(sql, 1)) == {1, new_id}


async def test_list_of_keys_keeps_the_members_with_these_keys(
    api: Api, imports: Imports, sql: Sql
) -> None:
    await make_segments(api, "a")
    await create_user(api, id="1", key="one")
    for user_id in (1, 2):
        await update_user_segments(api, user_id, add=["a"])
    finished = await imports.run(b"one\n", mode="REPLACE", identity="KEY")
    assert (counts(finished), finished["removals"]) == ({"ALREADY_IN": 1}, 1)
    assert set(await members(sql, 1)) == {1}


@pytest.mark.parametrize("is_above", [True, False])
async def test_pass_in_progress_decides_about_the_users_behind_its_cursor(
    imports: Imports, sql: Sql, database: Database, *, is_above: bool
) -> None:
    """A pass at a lower percent does not return to a user that it has processed."""
    segment_id = await make_segment(sql, "a")
    users = set(await store_users(sql, 40))
    for user_id in range(1, 21):
        await add_membership(sql, user_id, segment_id)
    await set_plan(database, "a", 80)
    await advance_rollout(database, segment_id)
    await set_plan(database, "a", 20)
    await advance_rollout(database, segment_id)
    large, small = expected_sample(segment_id, users, 80), expected_sample(segment_id, users, 20)
    # The second pass is at its beginning, or near its end.
    await sql.execute(
        "UPDATE rollouts SET phase = 'WORKING', finished_at = NULL, cursor_user_id = $1",
        30 if is_above else 0,
    )
    await sql.execute(
        "UPDATE rollout_passes SET finished_at = NULL WHERE pass_number ="
        " (SELECT max(pass_number) FROM rollout_passes)"
    )
    await imports.run(id_list(range(1, 21)), mode="REMOVE", exclude=False)
    kept = (small if is_above else large) & set(range(1, 21))
    assert {user_id for user_id in await members(sql, segment_id) if user_id <= 20} == kept


async def test_chunks_after_a_pause_of_the_worker_read_the_changes_since(
    api: Api, imports: Imports, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each chunk decides again. Here a chunk has one user, and a change comes between two."""
    monkeypatch.setattr("segmentql.imports.chunks.CHUNK_USERS", 1)
    monkeypatch.setattr("segmentql.imports.actors.MAX_RUN_SECONDS", -1)
    await make_segments(api, "a")
    for user_id in (7, 8):
        await update_user_segments(api, user_id, add=["a"])
    started = await imports.start(b"1\n2\n3\n", mode="REPLACE")
    await advance_import(imports.context, 1)
    assert counts(await imports.read(started["id"])) == {"JOINED": 1, "NOT_REACHED": 2}
    assert (await imports.read(started["id"]))["progress"] == pytest.approx(0.2)
    await update_user_segments(api, 2, remove=["a"])
    await update_user_segments(api, 3, add=["a"])
    await update_user_segments(api, 8, add=["a"], ttlSeconds=60, onExisting="REPLACE")
    await imports.work(started["id"])
    finished = await imports.read(started["id"])
    assert counts(finished) == {"JOINED": 1, "EXCLUDED": 1, "ALREADY_IN": 1}
    assert finished["removals"] == 1
    assert set(await members(sql, 1)) == {1, 3, 8}
