"""`explain` of plans and passes that were not recorded says that they are not known.

A process of the version before migration 0008 changes `rollouts` and records nothing. The tests let
the service work, and then delete what such a process would not have recorded.
"""

from datetime import timedelta

from segmentql.adapters.database import Database
from segmentql.rollouts.actors import advance_rollout
from tests.back_dating import MICROSECOND, advance_time
from tests.conftest import Api, Sql
from tests.explain.half_rollout import INSIDE, LOW, OUTSIDE, USERS, start_half
from tests.explain.operations import explain, reason
from tests.operations import create_segment, create_user, parse_timestamp, update_user_segments
from tests.rollouts.graphql_client import (
    accepted_rollout,
    cancel_rollout,
    pause_rollout,
    set_rollout,
)
from tests.rollouts.helpers import store_users

HOUR = timedelta(hours=1)


async def forget_events(sql: Sql, event: str = "SET") -> None:
    """Delete the last event of a kind."""
    deleted = await sql.execute(
        """
        DELETE FROM rollout_events
        WHERE id = (SELECT max(id) FROM rollout_events WHERE event::text = $1)
        """,
        event,
    )
    assert deleted == "DELETE 1"


async def forget_pass(sql: Sql, *, skip: int = 0) -> None:
    """Delete the last pass, or one before it."""
    deleted = await sql.execute(
        """
        DELETE FROM rollout_passes WHERE pass_number = (
            SELECT pass_number FROM rollout_passes ORDER BY pass_number DESC OFFSET $1 LIMIT 1)
        """,
        skip,
    )
    assert deleted == "DELETE 1"


async def assert_plan_unknown(api: Api, user_id: int = OUTSIDE, **arguments: object) -> str:
    """Check that the plan is not known; return for which time."""
    found = await explain(api, user_id, **arguments)  # type: ignore[arg-type]
    assert reason(found) == (False, "NEVER_ADDED")
    assert found["rollout"] is None
    assert found["steps"][-1]["check"] == "rollout is active"
    assert found["steps"][-1]["detail"].startswith("Its plan is not known")
    _, _, time = found["summary"].partition(" The rollout's plan is not known")
    assert found["steps"][-1]["detail"] == f"Its plan is not known{time}"
    return str(time)


async def assert_only_the_time_of_the_plan_is_unknown(api: Api) -> None:
    """Check that the plan of a paused rollout is known, but not when it was set."""
    found = await explain(api, OUTSIDE)
    assert reason(found) == (False, "ROLLOUT_PAUSED")
    (step,) = (step for step in found["steps"] if step["check"] == "rollout is active")
    assert step["detail"].startswith("It is not known when its plan was set.")


async def test_rollout_without_a_recorded_plan(api: Api, sql: Sql) -> None:
    await store_users(sql, USERS)
    await create_segment(api, slug="A", rollout={"percent": 50})
    await forget_events(sql)
    assert await assert_plan_unknown(api) == "."


async def test_first_recorded_event_of_a_rollout_is_not_its_plan(api: Api, sql: Sql) -> None:
    await store_users(sql, USERS)
    await create_segment(api, slug="A", rollout={"percent": 50})
    set_at = await sql.fetchval("SELECT at FROM rollout_events")
    accepted_rollout(await pause_rollout(api))
    await forget_events(sql)
    paused_at = await sql.fetchval("SELECT at FROM rollout_events")
    assert await assert_plan_unknown(api, as_of=set_at) == f" before {paused_at:%Y-%m-%d %T} UTC."
    await assert_only_the_time_of_the_plan_is_unknown(api)


async def test_plan_that_replaced_a_recorded_plan(api: Api, sql: Sql, database: Database) -> None:
    await start_half(api, sql, database)
    before = await explain(api, OUTSIDE)
    set_at = await sql.fetchval("SELECT at FROM rollout_events")
    await set_rollout(api, {"percent": 75})
    await forget_events(sql)
    assert await assert_plan_unknown(api) == f" after {set_at:%Y-%m-%d %T} UTC."
    await assert_plan_unknown(api, as_of=parse_timestamp(before["at"]))
    await set_rollout(api, {"percent": 80})
    assert reason(await explain(api, OUTSIDE)) == (False, "PASS_NOT_FINISHED")


async def test_plan_between_two_recorded_events(api: Api, sql: Sql, database: Database) -> None:
    await start_half(api, sql, database)
    await set_rollout(api, {"percent": 75})
    await forget_events(sql)
    accepted_rollout(await pause_rollout(api))
    times = [row["at"] for row in await sql.fetch("SELECT at FROM rollout_events ORDER BY id")]
    between = await assert_plan_unknown(api, as_of=times[1] - MICROSECOND)
    assert between == " after {:%Y-%m-%d %T} UTC and before {:%Y-%m-%d %T} UTC.".format(*times)
    await assert_only_the_time_of_the_plan_is_unknown(api)


async def test_cancellation_that_was_not_recorded(api: Api, sql: Sql, database: Database) -> None:
    await start_half(api, sql, database)
    accepted_rollout(await cancel_rollout(api))
    await forget_events(sql, "CANCELLED")
    await assert_plan_unknown(api)


async def test_plan_before_the_first_recorded_plan_of_a_rollout_that_worked(
    api: Api, sql: Sql, database: Database
) -> None:
    await start_half(api, sql, database)
    await forget_events(sql)
    await forget_pass(sql)
    await set_rollout(api, {"percent": 75})
    await advance_rollout(database, 1)
    set_at = await sql.fetchval("SELECT at FROM rollout_events")
    await assert_plan_unknown(api, as_of=set_at - MICROSECOND)


async def test_current_pass_that_was_not_recorded(api: Api, sql: Sql, database: Database) -> None:
    await start_half(api, sql, database)
    await forget_pass(sql)
    found = await explain(api, OUTSIDE)
    assert reason(found) == (False, "PASS_NOT_FINISHED")
    assert found["summary"] == (
        "The rollout at 50 % has not added the user. Its pass is not known."
    )
    assert (found["since"], found["rollout"]["boundHash"]) == (None, None)
    assert [step["detail"].rpartition(". ")[2] for step in found["steps"][-2:]] == [
        "The pass is not known."
    ] * 2
    assert reason(await explain(api, INSIDE)) == (True, "IN_SAMPLE")
    assert (await explain(api, INSIDE))["summary"].endswith("; the pass is not known.")
    await create_user(api, id=str(LOW))
    assert reason(await explain(api, LOW)) == (True, "IN_SAMPLE")
    await set_rollout(api, {"percent": 50})
    assert "not known" not in (await explain(api, OUTSIDE))["summary"]
    await advance_rollout(database, 1)
    assert reason(await explain(api, OUTSIDE)) == (False, "ABOVE_BOUND")


async def test_pass_between_two_recorded_passes(api: Api, sql: Sql, database: Database) -> None:
    await store_users(sql, USERS)
    stages = [{"percent": percent, "afterSeconds": 3600} for percent in (40, 50)]
    await create_segment(api, slug="A", rollout={"stages": [{"percent": 5}, *stages]})
    await advance_rollout(database, 1)
    first = parse_timestamp((await explain(api, OUTSIDE))["at"])
    for _ in stages:
        await advance_time(sql, HOUR)
        await advance_rollout(database, 1)
    assert reason(await explain(api, OUTSIDE, as_of=first - 2 * HOUR)) == (False, "ABOVE_BOUND")
    await forget_pass(sql, skip=1)
    past = await explain(api, OUTSIDE, as_of=first - 2 * HOUR)
    assert reason(past) == (False, "PASS_NOT_FINISHED")
    assert past["summary"].endswith("Its pass is not known.")
    assert reason(await explain(api, OUTSIDE)) == (False, "ABOVE_BOUND")


async def test_removal_by_a_pass_that_was_not_recorded(
    api: Api, sql: Sql, database: Database
) -> None:
    await start_half(api, sql, database)
    await set_rollout(api, {"percent": 0})
    await advance_rollout(database, 1)
    await forget_pass(sql)
    found = await explain(api, INSIDE)
    assert reason(found) == (False, "REMOVED_BY_ROLLOUT")
    assert found["summary"].endswith("; the pass is not known.")


async def test_leave_is_known_without_the_plan(api: Api, sql: Sql, database: Database) -> None:
    await start_half(api, sql, database)
    await forget_events(sql)
    await update_user_segments(api, INSIDE, remove=["A"])
    assert reason(await explain(api, INSIDE)) == (False, "REMOVED_BY_HAND")


async def test_deletion_of_the_segment_hides_no_plan(
    api: Api, sql: Sql, database: Database
) -> None:
    await start_half(api, sql, database)
    before = await explain(api, OUTSIDE)
    await api('mutation { deleteSegment(input: {slug: "A"}) { errors { message } } }')
    again = await explain(api, OUTSIDE, as_of=parse_timestamp(before["at"]))
    assert {**again, "segment": None} == {**before, "segment": None}


async def test_rollout_that_is_older_than_the_log(api: Api, sql: Sql, database: Database) -> None:
    """Migration 0008 records the plan and the pass that it finds."""
    await start_half(api, sql, database)
    at = await sql.fetchval(
        "UPDATE rollout_events SET event = 'BACKFILLED', at = clock_timestamp() RETURNING at"
    )
    before = await assert_plan_unknown(api, as_of=at - MICROSECOND)
    assert before == f" before {at:%Y-%m-%d %T} UTC."
    joined = await explain(api, INSIDE)
    assert reason(joined) == (True, "IN_SAMPLE")
    assert joined["summary"].endswith("; the pass is not known.")
    await create_user(api, id=str(LOW))
    assert reason(await explain(api, LOW)) == (True, "ENROLLED_WHEN_STORED")
    assert reason(await explain(api, OUTSIDE)) == (False, "ABOVE_BOUND")
