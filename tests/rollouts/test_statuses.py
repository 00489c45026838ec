"""The status of a rollout follows its schedule and the clock, even if no worker runs."""

from datetime import datetime
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.rollouts.actors import advance_rollout
from tests.back_dating import advance_time, all_rows
from tests.conftest import Api, Sql
from tests.operations import create_segment, delete_segment, parse_timestamp, update_user_segments
from tests.rollouts.graphql_client import (
    ROLLOUT,
    accepted_rollout,
    read_rollout,
    read_segment,
    set_rollout,
    summarize,
)
from tests.rollouts.helpers import (
    begin_pass,
    begin_pass_with_sample,
    expected_sample,
    members,
    store_users,
)
from tests.timeline import HOUR, SECOND, database_now

THREE = [
    {"percent": 10},
    {"percent": 50, "afterSeconds": 3600},
    {"percent": 25, "afterSeconds": 3600},
]
"""Three stages, an hour apart."""


async def member_ids(sql: Sql) -> set[int]:
    return set(await members(sql, 1))


def of_pass(rollout: Any) -> tuple[int, int, float]:
    """Return the reported progress of the current pass."""
    return rollout["usersTotal"], rollout["usersSeen"], rollout["progress"]


async def test_each_stage_runs_when_it_is_due_and_the_last_completes(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    await create_segment(api, slug="A", rollout={"stages": THREE})
    statuses = []
    for percent in (10, 50, 25):
        statuses.append(summarize(await read_rollout(api)))
        await advance_rollout(database, 1)
        assert await member_ids(sql) == expected_sample(1, users, percent)
        rollout = await read_rollout(api)
        statuses.append(summarize(rollout))
        assert (rollout["enrolled"], of_pass(rollout)) == (len(users) * percent / 100, (40, 40, 1))
        await advance_time(sql, HOUR)
    assert statuses == [
        ("RUNNING", 10, ["ACTIVE", "PENDING", "PENDING"]),
        ("WAITING", 10, ["DONE", "PENDING", "PENDING"]),
        ("RUNNING", 50, ["DONE", "ACTIVE", "PENDING"]),
        ("WAITING", 50, ["DONE", "DONE", "PENDING"]),
        ("RUNNING", 25, ["DONE", "DONE", "ACTIVE"]),
        ("COMPLETED", 25, ["DONE", "DONE", "DONE"]),
    ]


async def test_started_at_and_finished_at_match_first_and_last_stage(
    api: Api, sql: Sql, database: Database
) -> None:
    stages = [{"percent": 10, "afterSeconds": 3600}, {"percent": 20, "afterSeconds": 3600}]
    await create_segment(api, slug="A", rollout={"stages": stages})

    async def times() -> list[datetime | None]:
        rollout = await read_rollout(api)
        return [rollout[at] and parse_timestamp(rollout[at]) for at in ("startedAt", "finishedAt")]

    assert await times() == [None, None]
    await advance_time(sql, HOUR)
    assert await times() == [None, None]
    before = await database_now(sql)
    await advance_rollout(database, 1)
    started, finished = await times()
    assert started is not None
    assert before < started < await database_now(sql)
    assert finished is None
    await advance_time(sql, HOUR)
    before = await database_now(sql)
    await advance_rollout(database, 1)
    started_before, finished = await times()
    assert started_before == started - HOUR
    assert finished is not None
    assert before < finished < await database_now(sql)


async def test_missed_stages_are_skipped_even_before_a_worker_returns(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    await create_segment(api, slug="A", rollout={"stages": THREE})
    await advance_rollout(database, 1)
    await advance_time(sql, 2 * HOUR)
    rollout = await read_rollout(api)
    assert summarize(rollout) == ("RUNNING", 25, ["DONE", "SKIPPED", "ACTIVE"])
    assert of_pass(rollout) == (0, 0, 0)
    await advance_rollout(database, 1)
    assert summarize(await read_rollout(api)) == ("COMPLETED", 25, ["DONE", "SKIPPED", "DONE"])
    assert await member_ids(sql) == expected_sample(1, users, 25)


async def test_interrupted_stage_is_skipped_and_its_progress_reset(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    await create_segment(api, slug="A", rollout={"stages": THREE})
    await begin_pass(database, 1)
    assert of_pass(await read_rollout(api)) == (0, 0, 0)
    await begin_pass_with_sample(database, 1)
    unfinished = await read_rollout(api)
    assert summarize(unfinished) == ("RUNNING", 10, ["ACTIVE", "PENDING", "PENDING"])
    assert of_pass(unfinished) == (40, 0, 0)
    await advance_time(sql, HOUR)
    rollout = await read_rollout(api)
    assert summarize(rollout) == ("RUNNING", 50, ["SKIPPED", "ACTIVE", "PENDING"])
    assert of_pass(rollout) == (0, 0, 0)
    await advance_rollout(database, 1)
    assert summarize(await read_rollout(api)) == ("WAITING", 50, ["SKIPPED", "DONE", "PENDING"])
    assert await member_ids(sql) == expected_sample(1, users, 50)


async def test_plan_with_past_stages_begins_at_the_current_stage(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    now = await database_now(sql)
    percents = [(10, -48), (20, -1), (30, 1)]
    stages = [
        {"percent": percent, "startsAt": (now + hours * HOUR).isoformat()}
        for percent, hours in percents
    ]
    await create_segment(api, slug="A", rollout={"stages": stages})
    assert summarize(await read_rollout(api)) == ("RUNNING", 20, ["SKIPPED", "ACTIVE", "PENDING"])
    await advance_rollout(database, 1)
    assert summarize(await read_rollout(api)) == ("WAITING", 20, ["SKIPPED", "DONE", "PENDING"])
    assert await member_ids(sql) == expected_sample(1, users, 20)


async def test_scheduled_rollout_has_no_work_before_its_first_stage(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    stages = [{"percent": 50, "afterSeconds": 3600}]
    await create_segment(api, slug="A", rollout={"stages": stages})
    rollout = await read_rollout(api)
    assert summarize(rollout) == ("SCHEDULED", 0, ["PENDING"])
    assert (of_pass(rollout), rollout["startedAt"]) == ((0, 0, 0), None)
    before = await all_rows(sql)
    await advance_rollout(database, 1)
    assert await all_rows(sql) == before
    await advance_time(sql, HOUR - SECOND * 5)
    assert summarize(await read_rollout(api)) == ("SCHEDULED", 0, ["PENDING"])
    await advance_time(sql, SECOND * 5)
    assert summarize(await read_rollout(api)) == ("RUNNING", 50, ["ACTIVE"])
    await advance_rollout(database, 1)
    assert await member_ids(sql) == expected_sample(1, users, 50)


async def test_scheduled_rollout_removes_members_of_the_previous_plan(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    await create_segment(api, slug="A", rollout={"percent": 50})
    await advance_rollout(database, 1)
    by_hand = min(set(users) - expected_sample(1, users, 50))
    await update_user_segments(api, by_hand, add=["A"])
    stages = [{"percent": 20, "afterSeconds": 3600}, {"percent": 30, "afterSeconds": 3600}]
    rollout = accepted_rollout(await set_rollout(api, {"stages": stages}))
    assert summarize(rollout) == ("RUNNING", 0, ["PENDING", "PENDING"])
    await advance_rollout(database, 1)
    rollout = await read_rollout(api)
    assert summarize(rollout) == ("SCHEDULED", 0, ["PENDING", "PENDING"])
    assert (rollout["enrolled"], rollout["startedAt"]) == (0, None)
    assert of_pass(rollout) == (20, 20, 1)  # the pass that removed them
    assert await members(sql, 1) == {by_hand: "MANUAL"}
    await advance_time(sql, HOUR)
    assert summarize(await read_rollout(api)) == ("RUNNING", 20, ["ACTIVE", "PENDING"])


async def test_expired_rollout_is_completed_and_skips_pending_stages(
    api: Api, sql: Sql, database: Database
) -> None:
    await store_users(sql, 40)
    end = (await database_now(sql) + 2 * HOUR + SECOND).isoformat()
    await create_segment(api, slug="A", rollout={"stages": THREE, "expiresAt": end})
    await advance_rollout(database, 1)
    assert (await read_segment(api))["memberCount"] == 4
    # The rollout expires before a worker runs the second and the third stage.
    await advance_time(sql, 3 * HOUR)
    before = await all_rows(sql)
    after = await read_segment(api)
    assert summarize(after["rollout"]) == ("COMPLETED", 25, ["DONE", "SKIPPED", "SKIPPED"])
    assert (after["memberCount"], after["rollout"]["enrolled"]) == (0, 0)
    await advance_rollout(database, 1)
    assert await all_rows(sql) == before


async def test_stage_of_0_percent_is_carried_out(api: Api, sql: Sql, database: Database) -> None:
    await store_users(sql, 40)
    stages = [{"percent": 50}, {"percent": 0, "afterSeconds": 3600}]
    await create_segment(api, slug="A", rollout={"stages": stages})
    await advance_rollout(database, 1)
    await advance_time(sql, HOUR)
    assert summarize(await read_rollout(api)) == ("RUNNING", 0, ["DONE", "ACTIVE"])
    await advance_rollout(database, 1)
    rollout = await read_rollout(api)
    assert summarize(rollout) == ("COMPLETED", 0, ["DONE", "DONE"])
    assert (rollout["enrolled"], rollout["progress"]) == (0, 1)
    assert await member_ids(sql) == set()


@pytest.mark.parametrize("percent", [0, 50, 100])
async def test_rollout_without_users_completes(
    api: Api, sql: Sql, database: Database, percent: int
) -> None:
    await create_segment(api, slug="A", rollout={"percent": percent})
    await advance_rollout(database, 1)
    rollout = await read_rollout(api)
    assert summarize(rollout) == ("COMPLETED", percent, ["DONE"])
    assert (of_pass(rollout), rollout["enrolled"]) == ((0, 0, 1), 0)


async def test_enrolled_and_excluded_are_current_counts(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    sample = sorted(expected_sample(1, users, 50))
    (outside,) = sorted(set(users) - set(sample))[:1]

    async def counts_of_segment() -> tuple[int, int, int]:
        segment = await read_segment(api)
        rollout = segment["rollout"]
        return segment["memberCount"], rollout["enrolled"], rollout["excluded"]

    await create_segment(api, slug="A", rollout={"percent": 50})
    await advance_rollout(database, 1)
    assert await counts_of_segment() == (20, 20, 0)
    await update_user_segments(api, sample[0], remove=["A"])
    assert await counts_of_segment() == (19, 19, 1)
    await update_user_segments(api, sample[1], add=["A"])
    assert await counts_of_segment() == (19, 18, 1)
    await update_user_segments(api, outside, add=["A"])
    assert await counts_of_segment() == (20, 18, 1)
    await update_user_segments(api, sample[0], add=["A"])
    assert await counts_of_segment() == (21, 18, 0)
    await sql.execute(
        "UPDATE memberships SET expires_at = joined_at + interval '1 microsecond'"
        " WHERE user_id = $1",
        sample[2],
    )
    assert await counts_of_segment() == (20, 17, 0)


async def test_deleting_the_segment_cancels_its_rollout(
    api: Api, sql: Sql, database: Database
) -> None:
    await store_users(sql, 40)
    await create_segment(api, slug="A", rollout={"stages": THREE})
    await advance_rollout(database, 1)
    await advance_time(sql, HOUR)
    await begin_pass_with_sample(database, 1)
    await delete_segment(api, "A")
    await advance_time(sql, HOUR)
    before = await all_rows(sql)
    await advance_rollout(database, 1)
    assert await all_rows(sql) == before
    # History still leads to the deleted segment and its rollout.
    query = f"""{{ history(first: 1) {{ nodes {{ segment {{
      deletedAt memberCount rollout {{ {ROLLOUT} }} }} }} }} }}"""
    ((segment,),) = [
        [node["segment"] for node in page["nodes"]] for page in (await api(query)).values()
    ]
    rollout = segment["rollout"]
    assert summarize(rollout) == ("CANCELLED", 0, ["DONE", "SKIPPED", "SKIPPED"])
    assert (segment["memberCount"], rollout["enrolled"], rollout["excluded"]) == (0, 0, 0)
    finished, deleted = (
        parse_timestamp(rollout["finishedAt"]),
        parse_timestamp(segment["deletedAt"]),
    )
    assert deleted < finished < await database_now(sql) - HOUR


async def test_counts_beyond_the_range_of_int_are_returned(
    api: Api, sql: Sql, database: Database
) -> None:
    await store_users(sql, 4)
    await create_segment(api, slug="A", rollout={"percent": 50})
    await begin_pass_with_sample(database, 1)
    await sql.execute("UPDATE rollouts SET users_total = 3000000000, users_seen = 2500000000")
    rollout = await read_rollout(api)
    assert (rollout["usersTotal"], rollout["usersSeen"]) == (3_000_000_000, 2_500_000_000)
