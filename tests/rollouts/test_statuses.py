"""What a rollout is doing, by its schedule and the clock, whether or not a worker came by."""

from datetime import datetime
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.rollouts.actors import advance_rollout
from tests.conftest import Api, Sql
from tests.operations import change, create_segment, delete_segment, moment
from tests.past import contents, let_pass
from tests.rollouts.graphql_client import (
    ROLLOUT,
    done,
    in_short,
    rollout_of,
    segment_of,
    set_rollout,
)
from tests.rollouts.helpers import begin, begin_and_sample, members, sample_of, store_users
from tests.timeline import HOUR, SECOND, clock

THREE = [
    {"percent": 10},
    {"percent": 50, "afterSeconds": 3600},
    {"percent": 25, "afterSeconds": 3600},
]
"""Three stages, an hour apart."""


async def numbers_in(sql: Sql) -> set[int]:
    return set(await members(sql, 1))


def of_pass(rollout: Any) -> tuple[int, int, float]:
    """What is told of the pass under way."""
    return rollout["usersTotal"], rollout["usersSeen"], rollout["progress"]


async def test_each_stage_is_carried_out_when_it_is_due_and_the_last_one_completes(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    await create_segment(api, slug="A", rollout={"stages": THREE})
    told = []
    for percent in (10, 50, 25):
        told.append(in_short(await rollout_of(api)))
        await advance_rollout(database, 1)
        assert await numbers_in(sql) == sample_of(1, users, percent)
        rollout = await rollout_of(api)
        told.append(in_short(rollout))
        assert (rollout["enrolled"], of_pass(rollout)) == (len(users) * percent / 100, (40, 40, 1))
        await let_pass(sql, HOUR)
    assert told == [
        ("RUNNING", 10, ["ACTIVE", "PENDING", "PENDING"]),
        ("WAITING", 10, ["DONE", "PENDING", "PENDING"]),
        ("RUNNING", 50, ["DONE", "ACTIVE", "PENDING"]),
        ("WAITING", 50, ["DONE", "DONE", "PENDING"]),
        ("RUNNING", 25, ["DONE", "DONE", "ACTIVE"]),
        ("COMPLETED", 25, ["DONE", "DONE", "DONE"]),
    ]


async def test_it_started_with_the_first_stage_and_is_finished_with_the_last(
    api: Api, sql: Sql, database: Database
) -> None:
    stages = [{"percent": 10, "afterSeconds": 3600}, {"percent": 20, "afterSeconds": 3600}]
    await create_segment(api, slug="A", rollout={"stages": stages})

    async def times() -> list[datetime | None]:
        rollout = await rollout_of(api)
        return [rollout[at] and moment(rollout[at]) for at in ("startedAt", "finishedAt")]

    assert await times() == [None, None]
    await let_pass(sql, HOUR)
    assert await times() == [None, None]
    before = await clock(sql)
    await advance_rollout(database, 1)
    started, finished = await times()
    assert started is not None
    assert before < started < await clock(sql)
    assert finished is None
    await let_pass(sql, HOUR)
    before = await clock(sql)
    await advance_rollout(database, 1)
    started_before, finished = await times()
    assert started_before == started - HOUR
    assert finished is not None
    assert before < finished < await clock(sql)


async def test_a_worker_that_was_away_skips_what_it_missed_and_that_is_told_before_it_is_back(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    await create_segment(api, slug="A", rollout={"stages": THREE})
    await advance_rollout(database, 1)
    await let_pass(sql, 2 * HOUR)
    rollout = await rollout_of(api)
    assert in_short(rollout) == ("RUNNING", 25, ["DONE", "SKIPPED", "ACTIVE"])
    assert of_pass(rollout) == (0, 0, 0)
    await advance_rollout(database, 1)
    assert in_short(await rollout_of(api)) == ("COMPLETED", 25, ["DONE", "SKIPPED", "DONE"])
    assert await numbers_in(sql) == sample_of(1, users, 25)


async def test_a_stage_under_way_when_the_next_is_due_is_skipped_and_its_pass_is_told_no_more(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    await create_segment(api, slug="A", rollout={"stages": THREE})
    await begin(database, 1)
    assert of_pass(await rollout_of(api)) == (0, 0, 0)
    await begin_and_sample(database, 1)
    under_way = await rollout_of(api)
    assert in_short(under_way) == ("RUNNING", 10, ["ACTIVE", "PENDING", "PENDING"])
    assert of_pass(under_way) == (40, 0, 0)
    await let_pass(sql, HOUR)
    rollout = await rollout_of(api)
    assert in_short(rollout) == ("RUNNING", 50, ["SKIPPED", "ACTIVE", "PENDING"])
    assert of_pass(rollout) == (0, 0, 0)
    await advance_rollout(database, 1)
    assert in_short(await rollout_of(api)) == ("WAITING", 50, ["SKIPPED", "DONE", "PENDING"])
    assert await numbers_in(sql) == sample_of(1, users, 50)


async def test_a_plan_whose_first_stages_were_due_long_ago_begins_with_the_one_due_now(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    now = await clock(sql)
    percents = [(10, -48), (20, -1), (30, 1)]
    stages = [
        {"percent": percent, "startsAt": (now + hours * HOUR).isoformat()}
        for percent, hours in percents
    ]
    await create_segment(api, slug="A", rollout={"stages": stages})
    assert in_short(await rollout_of(api)) == ("RUNNING", 20, ["SKIPPED", "ACTIVE", "PENDING"])
    await advance_rollout(database, 1)
    assert in_short(await rollout_of(api)) == ("WAITING", 20, ["SKIPPED", "DONE", "PENDING"])
    assert await numbers_in(sql) == sample_of(1, users, 20)


async def test_before_its_first_stage_a_rollout_is_scheduled_and_no_worker_has_anything_to_do(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    stages = [{"percent": 50, "afterSeconds": 3600}]
    await create_segment(api, slug="A", rollout={"stages": stages})
    rollout = await rollout_of(api)
    assert in_short(rollout) == ("SCHEDULED", 0, ["PENDING"])
    assert (of_pass(rollout), rollout["startedAt"]) == ((0, 0, 0), None)
    before = await contents(sql)
    await advance_rollout(database, 1)
    assert await contents(sql) == before
    await let_pass(sql, HOUR - SECOND * 5)
    assert in_short(await rollout_of(api)) == ("SCHEDULED", 0, ["PENDING"])
    await let_pass(sql, SECOND * 5)
    assert in_short(await rollout_of(api)) == ("RUNNING", 50, ["ACTIVE"])
    await advance_rollout(database, 1)
    assert await numbers_in(sql) == sample_of(1, users, 50)


async def test_before_its_first_stage_a_rollout_takes_out_whom_the_plan_before_brought_in(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    await create_segment(api, slug="A", rollout={"percent": 50})
    await advance_rollout(database, 1)
    by_hand = min(set(users) - sample_of(1, users, 50))
    await change(api, by_hand, add=["A"])
    stages = [{"percent": 20, "afterSeconds": 3600}, {"percent": 30, "afterSeconds": 3600}]
    rollout = done(await set_rollout(api, {"stages": stages}))
    assert in_short(rollout) == ("RUNNING", 0, ["PENDING", "PENDING"])
    await advance_rollout(database, 1)
    rollout = await rollout_of(api)
    assert in_short(rollout) == ("SCHEDULED", 0, ["PENDING", "PENDING"])
    assert (rollout["enrolled"], rollout["startedAt"]) == (0, None)
    assert of_pass(rollout) == (20, 20, 1)  # the pass that took them out
    assert await members(sql, 1) == {by_hand: "MANUAL"}
    await let_pass(sql, HOUR)
    assert in_short(await rollout_of(api)) == ("RUNNING", 20, ["ACTIVE", "PENDING"])


async def test_after_its_end_a_rollout_is_complete_and_what_was_ahead_is_skipped(
    api: Api, sql: Sql, database: Database
) -> None:
    await store_users(sql, 40)
    end = (await clock(sql) + 2 * HOUR + SECOND).isoformat()
    await create_segment(api, slug="A", rollout={"stages": THREE, "expiresAt": end})
    await advance_rollout(database, 1)
    assert (await segment_of(api))["memberCount"] == 4
    # The end passes before a worker comes for the second and the third stage.
    await let_pass(sql, 3 * HOUR)
    before = await contents(sql)
    after = await segment_of(api)
    assert in_short(after["rollout"]) == ("COMPLETED", 25, ["DONE", "SKIPPED", "SKIPPED"])
    assert (after["memberCount"], after["rollout"]["enrolled"]) == (0, 0)
    await advance_rollout(database, 1)
    assert await contents(sql) == before


async def test_no_percent_is_a_stage_like_any_other(api: Api, sql: Sql, database: Database) -> None:
    await store_users(sql, 40)
    stages = [{"percent": 50}, {"percent": 0, "afterSeconds": 3600}]
    await create_segment(api, slug="A", rollout={"stages": stages})
    await advance_rollout(database, 1)
    await let_pass(sql, HOUR)
    assert in_short(await rollout_of(api)) == ("RUNNING", 0, ["DONE", "ACTIVE"])
    await advance_rollout(database, 1)
    rollout = await rollout_of(api)
    assert in_short(rollout) == ("COMPLETED", 0, ["DONE", "DONE"])
    assert (rollout["enrolled"], rollout["progress"]) == (0, 1)
    assert await numbers_in(sql) == set()


@pytest.mark.parametrize("percent", [0, 50, 100])
async def test_without_users_a_rollout_completes_with_nobody_in(
    api: Api, sql: Sql, database: Database, percent: int
) -> None:
    await create_segment(api, slug="A", rollout={"percent": percent})
    await advance_rollout(database, 1)
    rollout = await rollout_of(api)
    assert in_short(rollout) == ("COMPLETED", percent, ["DONE"])
    assert (of_pass(rollout), rollout["enrolled"]) == ((0, 0, 1), 0)


async def test_enrolled_and_excluded_are_those_of_now(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    sample = sorted(sample_of(1, users, 50))
    (outside,) = sorted(set(users) - set(sample))[:1]

    async def counted() -> tuple[int, int, int]:
        segment = await segment_of(api)
        rollout = segment["rollout"]
        return segment["memberCount"], rollout["enrolled"], rollout["excluded"]

    await create_segment(api, slug="A", rollout={"percent": 50})
    await advance_rollout(database, 1)
    assert await counted() == (20, 20, 0)
    await change(api, sample[0], remove=["A"])
    assert await counted() == (19, 19, 1)
    await change(api, sample[1], add=["A"])
    assert await counted() == (19, 18, 1)
    await change(api, outside, add=["A"])
    assert await counted() == (20, 18, 1)
    await change(api, sample[0], add=["A"])
    assert await counted() == (21, 18, 0)
    await sql.execute(
        "UPDATE memberships SET expires_at = joined_at + interval '1 microsecond'"
        " WHERE user_id = $1",
        sample[2],
    )
    assert await counted() == (20, 17, 0)


async def test_deleting_the_segment_cancels_its_rollout_and_no_worker_goes_on(
    api: Api, sql: Sql, database: Database
) -> None:
    await store_users(sql, 40)
    await create_segment(api, slug="A", rollout={"stages": THREE})
    await advance_rollout(database, 1)
    await let_pass(sql, HOUR)
    await begin_and_sample(database, 1)
    await delete_segment(api, "A")
    await let_pass(sql, HOUR)
    before = await contents(sql)
    await advance_rollout(database, 1)
    assert await contents(sql) == before
    # Who reads history still comes to the segment, and by it to the rollout.
    query = f"""{{ history(first: 1) {{ nodes {{ segment {{
      deletedAt memberCount rollout {{ {ROLLOUT} }} }} }} }} }}"""
    ((segment,),) = [
        [node["segment"] for node in page["nodes"]] for page in (await api(query)).values()
    ]
    rollout = segment["rollout"]
    assert in_short(rollout) == ("CANCELLED", 0, ["DONE", "SKIPPED", "SKIPPED"])
    assert (segment["memberCount"], rollout["enrolled"], rollout["excluded"]) == (0, 0, 0)
    finished, deleted = moment(rollout["finishedAt"]), moment(segment["deletedAt"])
    assert deleted < finished < await clock(sql) - HOUR
