"""`pauseRollout` and `resumeRollout` stop and continue a rollout."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.rollouts import passes
from segmentql.rollouts.actors import advance_rollout
from tests.back_dating import advance_time, all_rows
from tests.conftest import Api, Sql
from tests.operations import create_segment, parse_timestamp
from tests.rollouts.graphql_client import (
    accepted_rollout,
    pause_rollout,
    read_rollout,
    read_segment,
    resume_rollout,
    summarize,
)
from tests.rollouts.helpers import expected_sample, members, store_users
from tests.rollouts.rollout_states import (
    FAILURE,
    STAGES_NOW_AND_LATER,
    CreateState,
    create_failed,
    create_paused,
    create_running,
    create_sampled,
    create_scheduled,
    create_waiting,
    fail_rollout,
)
from tests.timeline import HOUR, SECOND, database_now, history_inconsistencies


def starts_of(rollout: Any) -> list[datetime]:
    return [parse_timestamp(of["startsAt"]) for of in rollout["stages"]]


def by_rollout(user_ids: set[int]) -> dict[int, str]:
    return dict.fromkeys(user_ids, "ROLLOUT")


@pytest.mark.parametrize(
    ("create_state", "status"),
    [
        (create_scheduled, "SCHEDULED"),
        (create_running, "RUNNING"),
        (create_sampled, "RUNNING"),
        (create_waiting, "WAITING"),
    ],
)
async def test_paused_rollout_does_not_change_until_it_is_resumed(
    api: Api, sql: Sql, database: Database, create_state: CreateState, status: str
) -> None:
    await store_users(sql, 40)
    await create_state(api, database)
    before = await read_segment(api)
    assert before["rollout"]["status"] == status
    payload = await pause_rollout(api)
    assert accepted_rollout(payload) == {**before["rollout"], "status": "PAUSED"}
    paused_segment = await read_segment(api)
    assert paused_segment == {**before, "rollout": {**before["rollout"], "status": "PAUSED"}}
    assert {field: paused_segment[field] for field in payload["segment"]} == payload["segment"]
    all_stored = await all_rows(sql)
    await advance_rollout(database, 1)
    assert await all_rows(sql) == all_stored
    # Without the pause, both stages would have started.
    await advance_time(sql, 24 * HOUR)
    all_stored = await all_rows(sql)
    await advance_rollout(database, 1)
    assert await all_rows(sql) == all_stored
    assert summarize(await read_rollout(api)) == summarize(paused_segment["rollout"])
    payload = await resume_rollout(api)
    assert summarize(accepted_rollout(payload)) == summarize(before["rollout"])
    assert payload["rollout"] == await read_rollout(api)
    assert payload["segment"]["version"] == 1
    assert payload["segment"]["updatedAt"] == payload["segment"]["createdAt"]


async def test_pause_delays_exactly_the_pending_stages_by_its_length(
    api: Api, sql: Sql, database: Database
) -> None:
    stages = [{"percent": percent, "afterSeconds": 3600} for percent in (10, 20, 30, 40)]
    await create_segment(api, slug="A", rollout={"stages": stages})
    await advance_time(sql, 2 * HOUR + SECOND)
    accepted_rollout(await pause_rollout(api))
    await advance_time(sql, timedelta(hours=30, microseconds=5))
    before = starts_of(await read_rollout(api))
    paused_at = await sql.fetchval("SELECT paused_at FROM rollouts")
    payload = await resume_rollout(api)
    resumed_at = await sql.fetchval("SELECT heartbeat_at FROM rollouts")
    pause = resumed_at - paused_at
    assert pause > timedelta(hours=30)
    assert starts_of(accepted_rollout(payload)) == [
        before[0],
        before[1],
        before[2] + pause,
        before[3] + pause,
    ]
    assert summarize(payload["rollout"]) == (
        "RUNNING",
        20,
        ["SKIPPED", "ACTIVE", "PENDING", "PENDING"],
    )
    assert await sql.fetchval("SELECT paused_at FROM rollouts") is None


async def test_delays_of_several_pauses_add_up(api: Api, sql: Sql, database: Database) -> None:
    await create_segment(api, slug="A", rollout={"stages": STAGES_NOW_AND_LATER})
    before = starts_of(await read_rollout(api))
    paused_for = timedelta(0)
    for _ in range(3):
        accepted_rollout(await pause_rollout(api))
        await advance_time(sql, HOUR)
        paused_at = await sql.fetchval("SELECT paused_at FROM rollouts")
        accepted_rollout(await resume_rollout(api))
        paused_for += await sql.fetchval("SELECT heartbeat_at FROM rollouts") - paused_at
    moved = 3 * HOUR  # by back-dating
    after = starts_of(await read_rollout(api))
    assert after == [before[0] - moved, before[1] - moved + paused_for]


async def test_resumed_pass_continues_at_its_cursor(api: Api, sql: Sql, database: Database) -> None:
    users = await store_users(sql, 40)
    await create_sampled(api, database)
    pass_row = await sql.fetchrow("SELECT pass_number, bound_hash, bound_user_id FROM rollouts")
    accepted_rollout(await pause_rollout(api))
    await advance_time(sql, HOUR)
    await advance_rollout(database, 1)
    assert await members(sql, 1) == {}
    accepted_rollout(await resume_rollout(api))
    await advance_rollout(database, 1)
    assert await members(sql, 1) == by_rollout(expected_sample(1, users, 10))
    continued = await sql.fetchrow("SELECT pass_number, bound_hash, bound_user_id FROM rollouts")
    assert continued == pass_row
    assert await history_inconsistencies(sql) == {}


async def test_members_stay_while_the_rollout_is_paused(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    await create_paused(api, database)
    assert await members(sql, 1) == by_rollout(expected_sample(1, users, 10))
    assert (await read_rollout(api))["enrolled"] == 4


async def test_memberships_of_a_paused_rollout_expire_on_time(
    api: Api, sql: Sql, database: Database
) -> None:
    await store_users(sql, 40)
    end = (await database_now(sql) + 3 * HOUR).isoformat()
    await create_segment(api, slug="A", rollout={"stages": STAGES_NOW_AND_LATER, "expiresAt": end})
    await advance_rollout(database, 1)
    accepted_rollout(await pause_rollout(api))
    await advance_time(sql, 3 * HOUR)
    assert summarize(await read_rollout(api)) == ("PAUSED", 10, ["DONE", "PENDING"])
    assert (await read_rollout(api))["enrolled"] == 0
    # The second stage is delayed until after the expiry, so it never starts.
    assert summarize(accepted_rollout(await resume_rollout(api))) == (
        "COMPLETED",
        10,
        ["DONE", "SKIPPED"],
    )
    all_stored = await all_rows(sql)
    await advance_rollout(database, 1)
    assert await all_rows(sql) == all_stored


async def test_failed_rollout_shows_the_reason_and_resumes_at_its_cursor(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    await create_sampled(api, database)
    before = await read_rollout(api)
    await fail_rollout(database)
    assert await read_rollout(api) == {**before, "status": "FAILED", "failure": FAILURE}
    all_stored = await all_rows(sql)
    await advance_rollout(database, 1)
    assert await all_rows(sql) == all_stored
    assert accepted_rollout(await resume_rollout(api)) == before
    await advance_rollout(database, 1)
    assert summarize(await read_rollout(api)) == ("WAITING", 10, ["DONE", "PENDING"])
    assert await members(sql, 1) == by_rollout(expected_sample(1, users, 10))


async def test_schedule_of_a_failed_rollout_continues(
    api: Api, sql: Sql, database: Database
) -> None:
    await create_failed(api, database)
    before = starts_of(await read_rollout(api))
    await advance_time(sql, 2 * HOUR)
    assert summarize(await read_rollout(api)) == ("FAILED", 50, ["SKIPPED", "ACTIVE"])
    resumed = accepted_rollout(await resume_rollout(api))
    assert summarize(resumed) == ("RUNNING", 50, ["SKIPPED", "ACTIVE"])
    assert starts_of(resumed) == [start - 2 * HOUR for start in before]


async def test_progress_resets_the_failure_count(api: Api, sql: Sql, database: Database) -> None:
    await create_running(api, database)
    for _ in range(passes.MAX_FAILURES - 1):
        await database.transaction(lambda session: passes.record_failure(session, 1, FAILURE))
    assert (await read_rollout(api))["status"] == "RUNNING"
    await advance_rollout(database, 1)
    assert await sql.fetchval("SELECT failures FROM rollouts") == 0
