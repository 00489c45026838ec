"""The reasons of `explain` that a rollout causes, through mutations, worker steps and time."""

from datetime import timedelta

from segmentql.adapters.database import Database
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.sampling import rollout_hash_v1
from tests.back_dating import advance_time
from tests.conftest import Api, Sql
from tests.explain.half_rollout import DAY, HALF, HIGH, INSIDE, LOW, OUTSIDE, USERS, start_half
from tests.explain.operations import explain, reason
from tests.operations import (
    create_segment,
    create_user,
    make_segments,
    parse_timestamp,
    update_user_segments,
)
from tests.rollouts.graphql_client import (
    accepted_rollout,
    cancel_rollout,
    pause_rollout,
    resume_rollout,
    set_rollout,
)
from tests.rollouts.helpers import begin_pass, store_users
from tests.rollouts.rollout_states import FAILURE, fail_rollout


async def test_in_the_sample(api: Api, sql: Sql, database: Database) -> None:
    await start_half(api, sql, database)
    found = await explain(api, INSIDE)
    assert reason(found) == (True, "IN_SAMPLE")
    assert found["summary"].startswith("Added by the rollout at 50 % on ")
    assert found["rollout"]["inSample"] is True
    assert found["rollout"]["hash"] == rollout_hash_v1(1, INSIDE)
    assert found["rollout"]["boundHash"] == max(rollout_hash_v1(1, user_id) for user_id in HALF)
    assert found["rollout"]["percent"] == 50
    assert found["rollout"]["passFinishedAt"] is not None
    await sql.execute("UPDATE memberships SET actor = 'ops'")
    summary = (await explain(api, INSIDE))["summary"]
    assert summary.startswith('Added by the rollout at 50 % (set by the API key "ops") on ')


async def test_enrolled_when_stored(api: Api, sql: Sql, database: Database) -> None:
    await start_half(api, sql, database)
    user = (await create_user(api, id=str(LOW)))["user"]
    found = await explain(api, LOW)
    assert reason(found) == (True, "ENROLLED_WHEN_STORED")
    assert parse_timestamp(found["since"]) >= parse_timestamp(user["createdAt"])
    assert found["rollout"]["inSample"] is True


async def test_enrolled_before_a_later_pass_counts_the_user(
    api: Api, sql: Sql, database: Database
) -> None:
    await start_half(api, sql, database)
    await create_user(api, id=str(LOW))
    await set_rollout(api, {"percent": 100})
    await advance_rollout(database, 1)
    assert reason(await explain(api, LOW)) == (True, "ENROLLED_WHEN_STORED")


async def test_excluded_from_a_rollout(api: Api, sql: Sql, database: Database) -> None:
    await store_users(sql, USERS)
    await make_segments(api, "A")
    await update_user_segments(api, INSIDE, remove=["A"])
    assert reason(await explain(api, INSIDE)) == (False, "EXCLUDED")
    await set_rollout(api, {"percent": 100})
    await advance_rollout(database, 1)
    found = await explain(api, INSIDE)
    assert reason(found) == (False, "EXCLUDED")
    excluded_at = parse_timestamp(found["since"])
    assert reason(await explain(api, INSIDE, as_of=excluded_at)) == (False, "EXCLUDED")
    await update_user_segments(api, INSIDE, add=["A"])
    assert reason(await explain(api, INSIDE)) == (True, "ADDED_BY_HAND")
    assert reason(await explain(api, INSIDE, as_of=excluded_at)) == (False, "EXCLUDED")


async def test_above_the_bound(api: Api, sql: Sql, database: Database) -> None:
    await start_half(api, sql, database)
    found = await explain(api, OUTSIDE)
    assert reason(found) == (False, "ABOVE_BOUND")
    assert found["rollout"]["inSample"] is False
    assert found["rollout"]["hash"] > found["rollout"]["boundHash"]
    assert "Not in the sample of the rollout at 50 %" in found["summary"]
    assert [(step["check"], step["passed"]) for step in found["steps"]] == [
        ("segment exists", True),
        ("user is stored", True),
        ("user is a member", False),
        ("user is not excluded", True),
        ("rollout is active", True),
        ("stage has started", True),
        ("user is in the sample", False),
        ("pass has finished", True),
    ]
    await create_user(api, id=str(HIGH))
    new_user = await explain(api, HIGH)
    assert reason(new_user) == (False, "ABOVE_BOUND")


async def test_expired_member_whom_a_later_pass_did_not_select(
    api: Api, sql: Sql, database: Database
) -> None:
    await start_half(api, sql, database)
    await update_user_segments(api, OUTSIDE, add=["A"], ttlSeconds=60)
    await advance_time(sql, DAY)
    assert reason(await explain(api, OUTSIDE)) == (False, "EXPIRED")
    await set_rollout(api, {"percent": 50})
    await advance_rollout(database, 1)
    assert reason(await explain(api, OUTSIDE)) == (False, "ABOVE_BOUND")


async def test_first_stage_has_not_started(api: Api, sql: Sql) -> None:
    await create_user(api, id="7")
    stages = [{"percent": 100, "afterSeconds": 3600}]
    await create_segment(api, slug="A", rollout={"stages": stages})
    found = await explain(api)
    assert reason(found) == (False, "STAGE_NOT_STARTED")
    starts_at = await sql.fetchval("SELECT starts_at FROM rollout_stages")
    assert parse_timestamp(found["until"]) == starts_at
    assert found["rollout"]["percent"] == 0


async def test_pass_has_not_finished(api: Api, sql: Sql, database: Database) -> None:
    await store_users(sql, USERS)
    await create_segment(api, slug="A", rollout={"percent": 50})
    assert reason(await explain(api, INSIDE)) == (False, "PASS_NOT_FINISHED")
    await begin_pass(database, 1)
    without_sample = await explain(api, OUTSIDE)
    assert reason(without_sample) == (False, "PASS_NOT_FINISHED")
    assert without_sample["rollout"]["boundHash"] is None
    during = parse_timestamp(without_sample["at"])
    await advance_rollout(database, 1)
    assert reason(await explain(api, INSIDE)) == (True, "IN_SAMPLE")
    assert reason(await explain(api, INSIDE, as_of=during)) == (False, "PASS_NOT_FINISHED")
    past = await explain(api, OUTSIDE, as_of=during)
    assert {**past, "at": None} == {**without_sample, "at": None}


async def test_new_users_are_not_enrolled(api: Api, sql: Sql, database: Database) -> None:
    await start_half(api, sql, database, enrollNewUsers=False)
    await create_user(api, id=str(LOW))
    found = await explain(api, LOW)
    assert reason(found) == (False, "NEW_USERS_NOT_ENROLLED")
    assert found["rollout"]["inSample"] is False


async def test_removed_by_a_lower_percent(api: Api, sql: Sql, database: Database) -> None:
    await start_half(api, sql, database)
    await set_rollout(api, {"percent": 0})
    await advance_rollout(database, 1)
    found = await explain(api, INSIDE)
    assert reason(found) == (False, "REMOVED_BY_ROLLOUT")
    assert found["summary"].endswith("because its percent was lowered to 0 %.")
    before = parse_timestamp(found["since"]) - timedelta(microseconds=1)
    assert reason(await explain(api, INSIDE, as_of=before)) == (True, "IN_SAMPLE")


async def test_removed_by_a_withdrawal(api: Api, sql: Sql, database: Database) -> None:
    await start_half(api, sql, database)
    accepted_rollout(await cancel_rollout(api, withdraw=True))
    await advance_rollout(database, 1)
    found = await explain(api, INSIDE)
    assert reason(found) == (False, "REMOVED_BY_ROLLOUT")
    assert found["summary"].endswith("because the rollout was withdrawn.")
    assert found["rollout"]["percent"] == 0
    assert reason(await explain(api, OUTSIDE)) == (False, "ROLLOUT_STOPPED")


async def test_memberships_of_the_rollout_ended(api: Api, sql: Sql, database: Database) -> None:
    end = await sql.fetchval("SELECT clock_timestamp() + interval '1 hour'")
    await start_half(api, sql, database, expiresAt=end.isoformat())
    assert (await explain(api, INSIDE))["until"] is not None
    await advance_time(sql, DAY)
    for user_id in (INSIDE, OUTSIDE):
        found = await explain(api, user_id)
        assert reason(found) == (False, "ROLLOUT_EXPIRED")
        assert parse_timestamp(found["since"]) == end - DAY


async def test_paused_before_the_pass(api: Api, sql: Sql, database: Database) -> None:
    await store_users(sql, USERS)
    await create_segment(api, slug="A", rollout={"percent": 50})
    accepted_rollout(await pause_rollout(api))
    found = await explain(api, INSIDE)
    assert reason(found) == (False, "ROLLOUT_PAUSED")
    paused_at = await sql.fetchval("SELECT at FROM rollout_events WHERE event = 'PAUSED'")
    assert parse_timestamp(found["since"]) == paused_at
    accepted_rollout(await resume_rollout(api))
    await advance_rollout(database, 1)
    assert reason(await explain(api, INSIDE)) == (True, "IN_SAMPLE")
    assert reason(await explain(api, INSIDE, as_of=paused_at)) == (False, "ROLLOUT_PAUSED")


async def test_paused_before_the_first_stage(api: Api) -> None:
    await create_user(api, id="7")
    stages = [{"percent": 100, "afterSeconds": 3600}]
    await create_segment(api, slug="A", rollout={"stages": stages})
    accepted_rollout(await pause_rollout(api))
    assert reason(await explain(api)) == (False, "ROLLOUT_PAUSED")


async def test_stopped_before_the_pass(api: Api, sql: Sql) -> None:
    await store_users(sql, USERS)
    await create_segment(api, slug="A", rollout={"percent": 50})
    accepted_rollout(await cancel_rollout(api))
    found = await explain(api, INSIDE)
    assert reason(found) == (False, "ROLLOUT_STOPPED")
    assert "The rollout was cancelled on " in found["summary"]


async def test_failed_before_the_pass(api: Api, sql: Sql, database: Database) -> None:
    await store_users(sql, USERS)
    await create_segment(api, slug="A", rollout={"percent": 50})
    await fail_rollout(database)
    found = await explain(api, INSIDE)
    assert reason(found) == (False, "ROLLOUT_STOPPED")
    assert found["summary"].endswith(f" before it added the user: {FAILURE}")
