"""`pauseRollout` and `resumeRollout`: what they answer, and what comes of it."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.rollouts import passes
from segmentql.rollouts.actors import advance_rollout
from tests.conftest import Api, Sql
from tests.operations import create_segment, moment
from tests.past import contents, let_pass
from tests.rollouts.graphql_client import (
    done,
    in_short,
    pause_rollout,
    resume_rollout,
    rollout_of,
    segment_of,
)
from tests.rollouts.helpers import members, sample_of, store_users
from tests.rollouts.rollout_states import (
    FAILURE,
    NOW_AND_LATER,
    Bring,
    fail,
    failed,
    paused,
    running,
    sampled,
    scheduled,
    waiting,
)
from tests.timeline import HOUR, SECOND, clock, lies_of_history


def starts_of(rollout: Any) -> list[datetime]:
    return [moment(of["startsAt"]) for of in rollout["stages"]]


def by_rollout(user_ids: set[int]) -> dict[int, str]:
    return dict.fromkeys(user_ids, "ROLLOUT")


@pytest.mark.parametrize(
    ("bring", "status"),
    [(scheduled, "SCHEDULED"), (running, "RUNNING"), (sampled, "RUNNING"), (waiting, "WAITING")],
)
async def test_a_paused_rollout_is_as_it_was_and_stays_so_however_long_until_it_is_resumed(
    api: Api, sql: Sql, database: Database, bring: Bring, status: str
) -> None:
    await store_users(sql, 40)
    await bring(api, database)
    before = await segment_of(api)
    assert before["rollout"]["status"] == status
    payload = await pause_rollout(api)
    assert done(payload) == {**before["rollout"], "status": "PAUSED"}
    held = await segment_of(api)
    assert held == {**before, "rollout": {**before["rollout"], "status": "PAUSED"}}
    assert {field: held[field] for field in payload["segment"]} == payload["segment"]
    everything = await contents(sql)
    await advance_rollout(database, 1)
    assert await contents(sql) == everything
    # Both stages would have been due long ago.
    await let_pass(sql, 24 * HOUR)
    everything = await contents(sql)
    await advance_rollout(database, 1)
    assert await contents(sql) == everything
    assert in_short(await rollout_of(api)) == in_short(held["rollout"])
    payload = await resume_rollout(api)
    assert in_short(done(payload)) == in_short(before["rollout"])
    assert payload["rollout"] == await rollout_of(api)
    assert payload["segment"]["version"] == 1
    assert payload["segment"]["updatedAt"] == payload["segment"]["createdAt"]


async def test_a_pause_puts_off_the_stages_ahead_by_exactly_its_length_and_no_other(
    api: Api, sql: Sql, database: Database
) -> None:
    stages = [{"percent": percent, "afterSeconds": 3600} for percent in (10, 20, 30, 40)]
    await create_segment(api, slug="A", rollout={"stages": stages})
    await let_pass(sql, 2 * HOUR + SECOND)
    done(await pause_rollout(api))
    await let_pass(sql, timedelta(hours=30, microseconds=5))
    before = starts_of(await rollout_of(api))
    held_at = await sql.fetchval("SELECT held_at FROM rollouts")
    payload = await resume_rollout(api)
    resumed_at = await sql.fetchval("SELECT touched_at FROM rollouts")
    pause = resumed_at - held_at
    assert pause > timedelta(hours=30)
    assert starts_of(done(payload)) == [
        before[0],
        before[1],
        before[2] + pause,
        before[3] + pause,
    ]
    assert in_short(payload["rollout"]) == (
        "RUNNING",
        20,
        ["SKIPPED", "ACTIVE", "PENDING", "PENDING"],
    )
    assert await sql.fetchval("SELECT held_at FROM rollouts") is None


async def test_every_pause_counts(api: Api, sql: Sql, database: Database) -> None:
    await create_segment(api, slug="A", rollout={"stages": NOW_AND_LATER})
    before = starts_of(await rollout_of(api))
    paused_for = timedelta(0)
    for _ in range(3):
        done(await pause_rollout(api))
        await let_pass(sql, HOUR)
        held_at = await sql.fetchval("SELECT held_at FROM rollouts")
        done(await resume_rollout(api))
        paused_for += await sql.fetchval("SELECT touched_at FROM rollouts") - held_at
    moved = 3 * HOUR  # by letting time pass
    after = starts_of(await rollout_of(api))
    assert after == [before[0] - moved, before[1] - moved + paused_for]


async def test_a_pass_goes_on_where_the_pause_stopped_it(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    await sampled(api, database)
    begun = await sql.fetchrow("SELECT pass_number, bound_hash, bound_user_id FROM rollouts")
    done(await pause_rollout(api))
    await let_pass(sql, HOUR)
    await advance_rollout(database, 1)
    assert await members(sql, 1) == {}
    done(await resume_rollout(api))
    await advance_rollout(database, 1)
    assert await members(sql, 1) == by_rollout(sample_of(1, users, 10))
    went_on = await sql.fetchrow("SELECT pass_number, bound_hash, bound_user_id FROM rollouts")
    assert went_on == begun
    assert await lies_of_history(sql) == {}


async def test_who_is_in_stays_in_while_it_is_paused(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    await paused(api, database)
    assert await members(sql, 1) == by_rollout(sample_of(1, users, 10))
    assert (await rollout_of(api))["enrolled"] == 4


async def test_memberships_of_a_paused_rollout_end_when_they_were_to_end(
    api: Api, sql: Sql, database: Database
) -> None:
    await store_users(sql, 40)
    end = (await clock(sql) + 3 * HOUR).isoformat()
    await create_segment(api, slug="A", rollout={"stages": NOW_AND_LATER, "expiresAt": end})
    await advance_rollout(database, 1)
    done(await pause_rollout(api))
    await let_pass(sql, 3 * HOUR)
    assert in_short(await rollout_of(api)) == ("PAUSED", 10, ["DONE", "PENDING"])
    assert (await rollout_of(api))["enrolled"] == 0
    # The second stage is put off to after the end, and so to never.
    assert in_short(done(await resume_rollout(api))) == ("COMPLETED", 10, ["DONE", "SKIPPED"])
    everything = await contents(sql)
    await advance_rollout(database, 1)
    assert await contents(sql) == everything


async def test_a_failed_rollout_tells_why_and_is_resumed_where_it_failed(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    await sampled(api, database)
    before = await rollout_of(api)
    await fail(database)
    assert await rollout_of(api) == {**before, "status": "FAILED", "failure": FAILURE}
    everything = await contents(sql)
    await advance_rollout(database, 1)
    assert await contents(sql) == everything
    assert done(await resume_rollout(api)) == before
    await advance_rollout(database, 1)
    assert in_short(await rollout_of(api)) == ("WAITING", 10, ["DONE", "PENDING"])
    assert await members(sql, 1) == by_rollout(sample_of(1, users, 10))


async def test_the_schedule_of_a_failed_rollout_runs_on(
    api: Api, sql: Sql, database: Database
) -> None:
    await failed(api, database)
    before = starts_of(await rollout_of(api))
    await let_pass(sql, 2 * HOUR)
    assert in_short(await rollout_of(api)) == ("FAILED", 50, ["SKIPPED", "ACTIVE"])
    resumed = done(await resume_rollout(api))
    assert in_short(resumed) == ("RUNNING", 50, ["SKIPPED", "ACTIVE"])
    assert starts_of(resumed) == [start - 2 * HOUR for start in before]


async def test_one_try_fewer_than_makes_it_fail_is_forgotten_with_the_next_progress(
    api: Api, sql: Sql, database: Database
) -> None:
    await running(api, database)
    for _ in range(passes.MAX_FAILURES - 1):
        await database.transaction(lambda session: passes.record_failure(session, 1, FAILURE))
    assert (await rollout_of(api))["status"] == "RUNNING"
    await advance_rollout(database, 1)
    assert await sql.fetchval("SELECT failures FROM rollouts") == 0
