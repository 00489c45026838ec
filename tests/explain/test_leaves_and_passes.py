"""`explain` after a leave: whether the rollout has decided since, and which pass removed the user.

All states come from mutations and steps of a worker.
"""

from datetime import timedelta

from segmentql.adapters.database import Database
from segmentql.rollouts.actors import advance_rollout
from tests.back_dating import MICROSECOND, advance_time
from tests.conftest import Api, Sql
from tests.explain.half_rollout import INSIDE, OUTSIDE, USERS
from tests.explain.operations import explain, reason
from tests.operations import create_segment, parse_timestamp, update_user_segments
from tests.rollouts.graphql_client import accepted_rollout, cancel_rollout, set_rollout
from tests.rollouts.helpers import store_users

HOUR = timedelta(hours=1)
TWO_STAGES = [{"percent": 5}, {"percent": 50, "afterSeconds": 7200}]


async def start_first_stage(api: Api, sql: Sql, database: Database) -> None:
    await store_users(sql, USERS)
    await create_segment(api, slug="A", rollout={"stages": TWO_STAGES})
    await advance_rollout(database, 1)


async def withdraw(api: Api, database: Database) -> None:
    accepted_rollout(await cancel_rollout(api, withdraw=True))
    await advance_rollout(database, 1)


async def test_pass_after_a_leave_still_counts_after_a_withdrawal(
    api: Api, sql: Sql, database: Database
) -> None:
    await start_first_stage(api, sql, database)
    await update_user_segments(api, OUTSIDE, add=["A"], ttlSeconds=3600)
    await advance_time(sql, HOUR)
    assert reason(await explain(api, OUTSIDE)) == (False, "EXPIRED")
    await advance_time(sql, HOUR)
    await advance_rollout(database, 1)
    between = await explain(api, OUTSIDE)
    assert reason(between) == (False, "ABOVE_BOUND")
    accepted_rollout(await cancel_rollout(api, withdraw=True))
    assert reason(await explain(api, OUTSIDE)) == (False, "ROLLOUT_STOPPED")
    await advance_rollout(database, 1)
    assert reason(await explain(api, OUTSIDE)) == (False, "ROLLOUT_STOPPED")
    past = await explain(api, OUTSIDE, as_of=parse_timestamp(between["at"]))
    assert past == between


async def test_withdrawal_alone_is_no_decision_since_a_leave(
    api: Api, sql: Sql, database: Database
) -> None:
    await start_first_stage(api, sql, database)
    await update_user_segments(api, OUTSIDE, add=["A"], ttlSeconds=3600)
    await advance_time(sql, HOUR)
    await withdraw(api, database)
    assert reason(await explain(api, OUTSIDE)) == (False, "EXPIRED")


async def test_pass_before_a_leave_is_no_decision_since_the_leave(
    api: Api, sql: Sql, database: Database
) -> None:
    await start_first_stage(api, sql, database)
    await advance_time(sql, 2 * HOUR)
    await advance_rollout(database, 1)
    await update_user_segments(api, OUTSIDE, add=["A"], ttlSeconds=3600)
    await advance_time(sql, HOUR)
    assert reason(await explain(api, OUTSIDE)) == (False, "EXPIRED")


async def test_user_who_a_lower_percent_removed_before_a_withdrawal(
    api: Api, sql: Sql, database: Database
) -> None:
    await start_first_stage(api, sql, database)
    await set_rollout(api, {"percent": 50})
    await advance_rollout(database, 1)
    await set_rollout(api, {"percent": 0})
    await advance_rollout(database, 1)
    removed = await explain(api, INSIDE)
    assert removed["summary"].endswith(", because its percent was lowered to 0 %.")
    await withdraw(api, database)
    found = await explain(api, INSIDE)
    assert reason(found) == (False, "REMOVED_BY_ROLLOUT")
    assert found["summary"] == removed["summary"]


async def test_user_who_a_withdrawal_removed_and_a_new_plan_skipped(
    api: Api, sql: Sql, database: Database
) -> None:
    await store_users(sql, USERS)
    await create_segment(api, slug="A", rollout={"percent": 100})
    await advance_rollout(database, 1)
    await withdraw(api, database)
    removed = await explain(api, OUTSIDE)
    assert reason(removed) == (False, "REMOVED_BY_ROLLOUT")
    assert removed["summary"].endswith(", because the rollout was withdrawn.")
    await set_rollout(api, {"percent": 50})
    assert reason(await explain(api, OUTSIDE)) == (False, "PASS_NOT_FINISHED")
    await advance_rollout(database, 1)
    assert reason(await explain(api, OUTSIDE)) == (False, "ABOVE_BOUND")
    set_at = await sql.fetchval("SELECT max(at) FROM rollout_events WHERE event = 'SET'")
    before = await explain(api, OUTSIDE, as_of=set_at - MICROSECOND)
    assert reason(before) == (False, "REMOVED_BY_ROLLOUT")
