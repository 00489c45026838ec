"""Every reason of `explain`, through mutations, worker steps and time."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.explain.records import ExplanationReason
from segmentql.memberships.actors import expire_due_memberships
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.sampling import rollout_hash_v1
from tests.back_dating import advance_time
from tests.conftest import Api, Sql
from tests.explain.operations import EXPLAIN, explain, reason
from tests.operations import (
    create_segment,
    create_user,
    delete_segment,
    delete_user,
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
from tests.rollouts.helpers import begin_pass, expected_sample, store_users
from tests.rollouts.rollout_states import FAILURE, fail_rollout

DAY = timedelta(days=1)
IN_REASONS = {"ADDED_BY_HAND", "IMPORTED", "IN_SAMPLE", "ENROLLED_WHEN_STORED"}
USERS = 20
HALF = sorted(expected_sample(1, range(1, USERS + 1), 50))
INSIDE = HALF[0]
"""A user in the sample of 50 % of users 1 to 20 in segment 1."""
OUTSIDE = min(set(range(1, USERS + 1)) - set(HALF))
LOW = min(range(100, 200), key=lambda user_id: rollout_hash_v1(1, user_id))
"""A user who joins at 50 % if stored later."""
HIGH = max(range(100, 200), key=lambda user_id: rollout_hash_v1(1, user_id))


async def start_half(api: Api, sql: Sql, database: Database, **rollout: Any) -> None:
    """Store users 1 to 20 and finish the pass of a rollout of segment A at 50 %."""
    await store_users(sql, USERS)
    await create_segment(api, slug="A", rollout={"percent": 50, **rollout})
    await advance_rollout(database, 1)


async def test_added_by_hand(api: Api) -> None:
    await make_segments(api, "A")
    payload = await update_user_segments(api, 7, add=["A"], ttlSeconds=3600)
    membership = payload["user"]["memberships"][0]
    found = await explain(api)
    assert reason(found) == (True, "ADDED_BY_HAND")
    assert (found["since"], found["until"]) == (membership["joinedAt"], membership["expiresAt"])
    assert found["membership"] == {"id": membership["id"], "cause": "MANUAL"}
    assert found["lastEntry"]["operation"] == "JOINED"
    joined, ends = (f"{found[key][:19].replace('T', ' ')} UTC" for key in ("since", "until"))
    assert found["summary"] == f"Added by hand on {joined}; the membership ends on {ends}."
    assert [(step["check"], step["passed"]) for step in found["steps"]] == [
        ("segment exists", True),
        ("user is stored", True),
        ("user is a member", True),
    ]


async def test_member_of_a_rollout_who_is_added_by_hand(
    api: Api, sql: Sql, database: Database
) -> None:
    await start_half(api, sql, database)
    await update_user_segments(api, INSIDE, add=["A"])
    assert reason(await explain(api, INSIDE)) == (True, "ADDED_BY_HAND")


async def test_added_by_an_import(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await create_user(api, id="7")
    await sql.execute(
        """
        INSERT INTO memberships
            (user_id, segment_id, joined_at, updated_at, cause, actor, import_id)
        SELECT 7, 1, at, at, 'MANUAL', 'analytics', 42 FROM clock_timestamp() AS at
        """
    )
    found = await explain(api)
    assert reason(found) == (True, "IMPORTED")
    assert found["actor"] == "analytics"
    assert found["summary"].startswith("Added by import imp_42 on ")
    assert found["summary"].endswith(' by the API key "analytics".')
    await update_user_segments(api, 7, add=["A"], ttlSeconds=3600)
    extended = await explain(api)
    assert reason(extended) == (True, "IMPORTED")
    await update_user_segments(api, 7, remove=["A"])
    await update_user_segments(api, 7, add=["A"])
    assert reason(await explain(api)) == (True, "ADDED_BY_HAND")
    past = await explain(api, as_of=parse_timestamp(extended["at"]))
    assert reason(past) == (True, "IMPORTED")
    assert past["summary"] == found["summary"]


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


async def test_no_such_segment(api: Api, sql: Sql) -> None:
    await create_user(api, id="7")
    found = await explain(api, slug="NOPE")
    assert reason(found) == (False, "NO_SUCH_SEGMENT")
    assert found["summary"] == 'No segment has the slug "NOPE".'
    assert found["segment"] is None
    await make_segments(api, "NOPE")
    created = await sql.fetchval("SELECT created_at FROM segments")
    past = await explain(api, slug="NOPE", as_of=created - timedelta(microseconds=1))
    assert reason(past) == (False, "NO_SUCH_SEGMENT")
    assert past["summary"] == 'No segment had the slug "NOPE".'


async def test_deleted_segment(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"])
    await delete_segment(api, "A")
    found = await explain(api)
    assert reason(found) == (False, "SEGMENT_DELETED")
    assert found["since"] == found["segment"]["deletedAt"]
    assert (found["lastEntry"]["operation"], found["lastEntry"]["cause"]) == (
        "LEFT",
        "SEGMENT_DELETED",
    )
    before = parse_timestamp(found["since"]) - timedelta(microseconds=1)
    assert reason(await explain(api, as_of=before)) == (True, "ADDED_BY_HAND")


async def test_recreated_segment_is_another_segment(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"])
    await delete_segment(api, "A")
    await make_segments(api, "A")
    assert reason(await explain(api)) == (False, "NEVER_ADDED")


async def test_user_not_stored(api: Api) -> None:
    await make_segments(api, "A")
    found = await explain(api)
    assert reason(found) == (False, "USER_NOT_STORED")
    assert (found["summary"], found["rollout"]) == ("User 7 is not stored.", None)


async def test_left_with_the_user(api: Api) -> None:
    await make_segments(api, "A", "B")
    await update_user_segments(api, 7, add=["A"])
    await delete_user(api, 7)
    found = await explain(api)
    assert reason(found) == (False, "LEFT_WITH_USER")
    assert found["since"] == found["lastEntry"]["at"]
    assert reason(await explain(api, slug="B")) == (False, "USER_NOT_STORED")
    before = parse_timestamp(found["since"]) - timedelta(microseconds=1)
    assert reason(await explain(api, as_of=before)) == (True, "ADDED_BY_HAND")
    await create_user(api, id="7")
    assert reason(await explain(api)) == (False, "LEFT_WITH_USER")
    assert reason(await explain(api, slug="B")) == (False, "NEVER_ADDED")


async def test_user_was_not_stored_before_a_lifetime_that_ended(api: Api) -> None:
    await make_segments(api, "A")
    before = parse_timestamp((await explain(api))["at"])
    await create_user(api, id="7")
    assert reason(await explain(api, as_of=before)) == (False, "USER_NOT_STORED")
    await delete_user(api, 7)
    assert reason(await explain(api, as_of=before)) == (False, "USER_NOT_STORED")


async def test_user_who_was_removed_in_an_earlier_lifetime(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"])
    await update_user_segments(api, 7, remove=["A"])
    await delete_user(api, 7)
    await create_user(api, id="7")
    found = await explain(api)
    assert reason(found) == (False, "NEVER_ADDED")
    assert found["summary"].startswith('User 7 has not been added to "A" since the user was stored')


async def test_never_added(api: Api) -> None:
    await make_segments(api, "A")
    await create_user(api, id="7")
    found = await explain(api)
    assert reason(found) == (False, "NEVER_ADDED")
    assert found["summary"] == 'User 7 has never been added to "A", and the segment has no rollout.'


async def test_removed_by_hand(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"])
    await update_user_segments(api, 7, remove=["A"])
    found = await explain(api)
    assert reason(found) == (False, "REMOVED_BY_HAND")
    assert found["since"] == found["lastEntry"]["at"]
    assert found["steps"][-1]["check"] == "user is not excluded"


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


async def test_exclusion_ends_with_the_user(api: Api, sql: Sql, database: Database) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, remove=["A"])
    excluded_at = parse_timestamp((await explain(api))["at"])
    await delete_user(api, 7)
    await create_user(api, id="7")
    stored = await explain(api)
    assert reason(stored) == (False, "NEVER_ADDED")
    again = await explain(api, as_of=parse_timestamp(stored["at"]))
    assert {**again, "summary": None} == {**stored, "summary": None}
    assert reason(await explain(api, as_of=excluded_at)) == (False, "EXCLUDED")


async def test_expired(api: Api, sql: Sql, database: Database) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"], ttlSeconds=60)
    await advance_time(sql, DAY)
    unrecorded = await explain(api)
    assert reason(unrecorded) == (False, "EXPIRED")
    await expire_due_memberships(database)
    recorded = await explain(api)
    assert {**recorded, "at": None} == {**unrecorded, "at": None}
    before = parse_timestamp(recorded["since"]) - timedelta(microseconds=1)
    assert reason(await explain(api, as_of=before)) == (True, "ADDED_BY_HAND")


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


async def test_left_with_a_user_whose_lifetimes_were_not_recorded(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"])
    await delete_user(api, 7)
    await create_user(api, id="7")
    at = parse_timestamp((await explain(api))["at"])
    await delete_user(api, 7)
    assert reason(await explain(api, as_of=at)) == (False, "LEFT_WITH_USER")
    await sql.execute("DELETE FROM user_lifetimes")
    found = await explain(api, as_of=at)
    assert reason(found) == (False, "LEFT_WITH_USER")
    assert found["steps"][1]["detail"].endswith("It is not known when the user was stored.")


def test_documented_reasons_are_the_reasons() -> None:
    text = (Path(__file__).parents[2] / "docs" / "explain.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (yes|no) \| .* \| `(\w+)` \|$", text, re.MULTILINE)
    assert {name for _, name in rows} == set(ExplanationReason)
    assert {name for is_in, name in rows if is_in == "yes"} == IN_REASONS


def test_every_reason_has_a_test() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in ExplanationReason if f'"{name}")' not in text] == []


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("userId", "0"),
        ("userId", "seven"),
        ("slug", ""),
        ("slug", "a b"),
        ("asOf", "2999-01-01T00:00:00Z"),
    ],
)
async def test_invalid_arguments_are_rejected(api: Api, argument: str, value: str) -> None:
    error = await api.error(EXPLAIN, **{"userId": "7", "slug": "A", argument: value})
    assert error["extensions"]["code"] == "BAD_REQUEST"
    assert error["extensions"]["argument"] == argument
