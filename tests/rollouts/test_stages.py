"""Stages follow the schedule and the clock, however late a worker runs."""

from segmentql.adapters.database import Database
from segmentql.rollouts.actors import advance_rollout
from tests.back_dating import advance_time
from tests.conftest import Api, Sql
from tests.rollouts.helpers import (
    begin_pass,
    begin_pass_with_sample,
    cancel,
    expected_sample,
    history_counts,
    joins_on_insert,
    members,
    read_rollout,
    set_plan,
    stage,
    store_users,
    update_manually,
    work_chunk,
)
from tests.timeline import HOUR, SECOND, database_now, history_inconsistencies, make_segment

STATES = """
{ segment(slug: "A") { rollout { status percent stages { percent status } startedAt finishedAt } } }
"""


async def states(api: Api) -> tuple[str, float, list[str]]:
    rollout = (await api(STATES))["segment"]["rollout"]
    return (
        rollout["status"],
        rollout["percent"],
        [stage["status"] for stage in rollout["stages"]],
    )


async def test_each_stage_runs_when_it_is_due_and_percents_may_fall(
    api: Api, sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, 200)
    percents = (10, 50, 20, 30)
    await set_plan(database, "A", 10, *(stage(p, after=HOUR) for p in percents[1:]))
    for number, percent in enumerate(percents):
        before, ahead = ["DONE"] * number, ["PENDING"] * (3 - number)
        assert await states(api) == ("RUNNING", percent, [*before, "ACTIVE", *ahead])
        await advance_rollout(database, segment_id)
        status = "WAITING" if ahead else "COMPLETED"
        assert await states(api) == (status, percent, [*before, "DONE", *ahead])
        assert set(await members(sql, segment_id)) == expected_sample(segment_id, users, percent)
        await advance_rollout(database, segment_id)  # nothing is due
        await advance_time(sql, HOUR)
    assert await history_counts(sql, segment_id) == {
        ("JOINED", "ROLLOUT"): 20 + 80 + 20,
        ("LEFT", "ROLLOUT"): 60,
    }
    assert await history_inconsistencies(sql) == {}


async def test_late_worker_runs_the_current_stage_and_skips_earlier_ones(
    api: Api, sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, 100)
    await set_plan(database, "A", 10, *(stage(p, after=HOUR) for p in (90, 40, 70)))
    await advance_time(sql, 2 * HOUR)
    # Correct before a worker has run.
    assert await states(api) == ("RUNNING", 40, ["SKIPPED", "SKIPPED", "ACTIVE", "PENDING"])
    await advance_rollout(database, segment_id)
    assert await states(api) == ("WAITING", 40, ["SKIPPED", "SKIPPED", "DONE", "PENDING"])
    assert set(await members(sql, segment_id)) == expected_sample(segment_id, users, 40)
    assert await history_counts(sql, segment_id) == {("JOINED", "ROLLOUT"): 40}
    await advance_time(sql, 10 * HOUR)
    await advance_rollout(database, segment_id)
    assert await states(api) == ("COMPLETED", 70, ["SKIPPED", "SKIPPED", "DONE", "DONE"])
    assert set(await members(sql, segment_id)) == expected_sample(segment_id, users, 70)


async def test_plan_with_only_past_stages_runs_the_last_one(
    api: Api, sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, 50)
    now = await database_now(sql)
    await set_plan(
        database,
        "A",
        stage(80, starts_at=now - 3 * HOUR),
        stage(60, starts_at=now - 2 * HOUR),
        stage(30, starts_at=now - SECOND),
    )
    await advance_rollout(database, segment_id)
    assert await states(api) == ("COMPLETED", 30, ["SKIPPED", "SKIPPED", "DONE"])
    assert set(await members(sql, segment_id)) == expected_sample(segment_id, users, 30)
    assert await history_counts(sql, segment_id) == {("JOINED", "ROLLOUT"): 15}


async def test_stage_due_during_a_pass_begins_a_new_pass(
    api: Api, sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, 100)
    await set_plan(database, "A", 90, stage(20, after=HOUR))
    await begin_pass_with_sample(database, segment_id)
    await advance_time(sql, HOUR)
    sampling = await begin_pass(database, segment_id)
    assert sampling.percent == 20
    await advance_rollout(database, segment_id)
    assert await states(api) == ("COMPLETED", 20, ["SKIPPED", "DONE"])
    assert set(await members(sql, segment_id)) == expected_sample(segment_id, users, 20)
    assert await history_counts(sql, segment_id) == {("JOINED", "ROLLOUT"): 20}


async def test_members_of_an_earlier_plan_leave_before_the_first_stage(
    api: Api, sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, 100)
    await update_manually(database, 7, add=["A"])
    await set_plan(database, "A", 60)
    await advance_rollout(database, segment_id)
    in_before = len(await members(sql, segment_id))
    await set_plan(database, "A", stage(10, after=HOUR))
    assert await states(api) == ("RUNNING", 0, ["PENDING"])
    await advance_rollout(database, segment_id)
    assert await states(api) == ("SCHEDULED", 0, ["PENDING"])
    later = await store_users(sql, 50, first=101)
    assert await members(sql, segment_id) == {7: "MANUAL"}
    assert (await history_counts(sql, segment_id))["LEFT", "ROLLOUT"] == in_before - 1
    assert (await read_rollout(database, segment_id)).started_at is None
    await advance_time(sql, HOUR)
    await advance_rollout(database, segment_id)
    sample = expected_sample(segment_id, [*users, *later], 10)
    assert await members(sql, segment_id) == {**dict.fromkeys(sample, "ROLLOUT"), 7: "MANUAL"}
    assert await history_inconsistencies(sql) == {}


async def test_first_plan_has_no_work_before_its_first_stage(
    api: Api, sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 10)
    await set_plan(database, "A", stage(50, after=HOUR), stage(0, after=HOUR))
    assert await states(api) == ("SCHEDULED", 0, ["PENDING", "PENDING"])
    await advance_rollout(database, segment_id)
    assert await states(api) == ("SCHEDULED", 0, ["PENDING", "PENDING"])
    assert await history_counts(sql, segment_id) == {}
    await advance_time(sql, HOUR)
    await advance_rollout(database, segment_id)
    assert await states(api) == ("WAITING", 50, ["DONE", "PENDING"])
    assert len(await members(sql, segment_id)) == 5
    await advance_time(sql, HOUR)
    await advance_rollout(database, segment_id)
    assert await states(api) == ("COMPLETED", 0, ["DONE", "DONE"])
    assert await members(sql, segment_id) == {}


# --- Users who joined in stages without a pass ---------------------------------------------------


async def test_lower_stage_removes_users_who_joined_in_a_skipped_stage(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    early = await store_users(sql, 40)
    await set_plan(
        database, "A", stage(5, after=HOUR), stage(80, after=HOUR), stage(30, after=HOUR)
    )
    await advance_time(sql, 2 * HOUR)  # 80 % is in force, and no worker has run
    late = await store_users(sql, 60, first=41)
    joined = {user_id for user_id in late if joins_on_insert(segment_id, user_id, 80)}
    assert set(await members(sql, segment_id)) == joined
    await advance_time(sql, HOUR)
    await advance_rollout(database, segment_id)
    sample = expected_sample(segment_id, [*early, *late], 30)
    assert joined - sample
    assert set(await members(sql, segment_id)) == sample
    assert await history_counts(sql, segment_id) == {
        ("JOINED", "ROLLOUT"): len(joined | sample),
        ("LEFT", "ROLLOUT"): len(joined - sample),
    }
    assert await history_inconsistencies(sql) == {}


async def test_lower_plan_removes_users_who_joined_without_a_pass(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", 80)
    users = await store_users(sql, 100)
    assert set(await members(sql, segment_id)) == {
        u for u in users if joins_on_insert(segment_id, u, 80)
    }
    await set_plan(database, "A", 30)
    await advance_rollout(database, segment_id)
    assert set(await members(sql, segment_id)) == expected_sample(segment_id, users, 30)


async def test_lower_plan_removes_users_who_joined_a_cancelled_plan(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", 80)
    users = await store_users(sql, 100)
    await cancel(database, "A")
    await set_plan(database, "A", stage(30, after=HOUR))
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == {}
    await advance_time(sql, HOUR)
    await advance_rollout(database, segment_id)
    assert set(await members(sql, segment_id)) == expected_sample(segment_id, users, 30)


async def test_lower_plan_removes_users_who_joined_in_an_unfinished_pass(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    early = await store_users(sql, 50)
    await set_plan(database, "A", 90)
    await begin_pass_with_sample(database, segment_id)
    late = await store_users(sql, 50, first=51)
    await set_plan(database, "A", 60)
    await begin_pass_with_sample(database, segment_id)
    await work_chunk(database, segment_id)
    assert set(await members(sql, segment_id)) == expected_sample(segment_id, [*early, *late], 60)
