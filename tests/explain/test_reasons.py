"""The reasons of `explain`; test_rollout_reasons.py has those that a rollout causes."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from segmentql.adapters.database import Database
from segmentql.explain.records import ExplanationReason
from segmentql.memberships.actors import expire_due_memberships
from tests.back_dating import advance_time
from tests.conftest import Api, Sql
from tests.explain.half_rollout import DAY, INSIDE, start_half
from tests.explain.operations import EXPLAIN, explain, reason
from tests.operations import (
    create_user,
    delete_segment,
    delete_user,
    make_segments,
    parse_timestamp,
    update_user_segments,
)

IN_REASONS = {"ADDED_BY_HAND", "IMPORTED", "IN_SAMPLE", "ENROLLED_WHEN_STORED"}


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
    files = (Path(__file__), Path(__file__).with_name("test_rollout_reasons.py"))
    text = "".join(file.read_text(encoding="utf-8") for file in files)
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
