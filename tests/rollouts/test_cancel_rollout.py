"""`cancelRollout` ends a rollout, with or without `withdraw`."""

import pytest

from segmentql.adapters.database import Database
from segmentql.rollouts.actors import advance_rollout
from tests.back_dating import advance_time, all_rows
from tests.conftest import Api, Sql
from tests.operations import delete_segment, parse_timestamp, update_user_segments
from tests.rollouts.graphql_client import (
    accepted_rollout,
    cancel_rollout,
    read_rollout,
    read_segment,
    resume_rollout,
    set_rollout,
    summarize,
)
from tests.rollouts.helpers import expected_sample, history_counts, members, store_users
from tests.rollouts.helpers import read_rollout as read_rollout_row
from tests.rollouts.rollout_states import (
    FAILURE,
    CreateState,
    create_completed,
    create_failed,
    create_paused,
    create_running,
    create_sampled,
    create_scheduled,
    create_waiting,
    fail_rollout,
)
from tests.timeline import HOUR, database_now, history_entries, history_inconsistencies


def by_rollout(user_ids: set[int]) -> dict[int, str]:
    return dict.fromkeys(user_ids, "ROLLOUT")


STATES: list[tuple[CreateState, tuple[str, float, list[str]]]] = [
    (create_scheduled, ("SCHEDULED", 0, ["SKIPPED", "SKIPPED"])),
    (create_running, ("RUNNING", 10, ["SKIPPED", "SKIPPED"])),
    (create_sampled, ("RUNNING", 10, ["SKIPPED", "SKIPPED"])),
    (create_waiting, ("WAITING", 10, ["DONE", "SKIPPED"])),
    (create_paused, ("PAUSED", 10, ["DONE", "SKIPPED"])),
    (create_completed, ("COMPLETED", 10, ["DONE"])),
    (create_failed, ("FAILED", 10, ["SKIPPED", "SKIPPED"])),
]
"""States before the cancellation: status and percent, and the stages after it."""


@pytest.mark.parametrize(("create_state", "expected"), STATES)
async def test_cancelled_rollout_keeps_members_and_never_continues(
    api: Api,
    sql: Sql,
    database: Database,
    create_state: CreateState,
    expected: tuple[str, float, list[str]],
) -> None:
    await store_users(sql, 40)
    await create_state(api, database)
    status, percent, stages = expected
    before = await read_segment(api)
    assert summarize(before["rollout"])[:2] == (status, percent)
    called_at = await database_now(sql)
    payload = await cancel_rollout(api)
    rollout = accepted_rollout(payload)
    assert summarize(rollout) == ("CANCELLED", percent, stages)
    assert called_at < parse_timestamp(rollout["finishedAt"]) < await database_now(sql)
    same = ("id", "enrolled", "usersTotal", "usersSeen", "progress", "startedAt")
    assert {of: rollout[of] for of in same} == {of: before["rollout"][of] for of in same}
    assert rollout["failure"] is None
    assert await read_segment(api) == {**before, "rollout": rollout}
    assert {field: before[field] for field in payload["segment"]} == payload["segment"]
    # No worker changes anything, now or when the next stage would have started.
    for _ in range(2):
        all_stored = await all_rows(sql)
        await advance_rollout(database, 1)
        assert await all_rows(sql) == all_stored
        assert summarize(await read_rollout(api)) == ("CANCELLED", percent, stages)
        await advance_time(sql, 24 * HOUR)


async def test_withdraw_may_be_false_or_null(api: Api, sql: Sql, database: Database) -> None:
    await store_users(sql, 40)
    await create_waiting(api, database)
    for withdraw in (False, None):
        rollout = accepted_rollout(await cancel_rollout(api, withdraw=withdraw))
        assert (rollout["status"], rollout["percent"], rollout["enrolled"]) == ("CANCELLED", 10, 4)
        accepted_rollout(await set_rollout(api, {"percent": 10}))


async def test_cancelling_a_paused_rollout_starts_no_delayed_stage(
    api: Api, sql: Sql, database: Database
) -> None:
    await store_users(sql, 40)
    await create_paused(api, database)
    await advance_time(sql, 24 * HOUR)
    assert summarize(accepted_rollout(await cancel_rollout(api))) == (
        "CANCELLED",
        10,
        ["DONE", "SKIPPED"],
    )
    assert (await read_segment(api))["memberCount"] == 4


async def test_deleting_the_segment_starts_no_stage_of_a_paused_rollout(
    api: Api, sql: Sql, database: Database
) -> None:
    await create_paused(api, database)
    await advance_time(sql, 24 * HOUR)
    await delete_segment(api, "A")
    rollout = await read_rollout_row(database, 1)
    assert (rollout.status, rollout.current) == ("CANCELLED", 1)


@pytest.mark.parametrize(("create_state", "expected"), STATES)
async def test_withdrawing_removes_exactly_the_members_of_the_rollout(
    api: Api,
    sql: Sql,
    database: Database,
    create_state: CreateState,
    expected: tuple[str, float, list[str]],
) -> None:
    users = await store_users(sql, 40)
    await create_state(api, database)
    _, _, stages = expected
    sample = sorted(expected_sample(1, users, 10))
    outside = min(set(users) - set(sample))
    # One user of the sample is added manually, one is removed, and one outside it is added.
    for user_id, change in (
        (sample[0], {"add": ["A"]}),
        (outside, {"add": ["A"]}),
        (sample[1], {"remove": ["A"]}),
    ):
        await update_user_segments(api, user_id, **change)
    before = await read_segment(api)
    payload = await cancel_rollout(api, withdraw=True)
    rollout = accepted_rollout(payload)
    assert summarize(rollout) == ("WITHDRAWING", 0, stages)
    assert (rollout["finishedAt"], rollout["failure"]) == (None, None)
    assert rollout["enrolled"] == before["rollout"]["enrolled"]
    assert {field: before[field] for field in payload["segment"]} == payload["segment"]
    withdrawn = before["rollout"]["enrolled"]
    called_at = await database_now(sql)
    await advance_rollout(database, 1)
    assert await members(sql, 1) == {sample[0]: "MANUAL", outside: "MANUAL"}
    leaves = [entry for entry in await history_entries(sql) if entry.operation == "LEFT"]
    by_hand = [entry for entry in leaves if entry.cause == "MANUAL"]
    assert {entry.user_id for entry in by_hand} <= {sample[1]}
    taken_out = [entry for entry in leaves if entry.cause == "ROLLOUT"]
    assert len(taken_out) == withdrawn == len(leaves) - len(by_hand)
    assert {entry.user_id for entry in taken_out} <= set(sample)
    assert all(entry.at > called_at for entry in taken_out)
    after = await read_segment(api)
    assert summarize(after["rollout"]) == ("CANCELLED", 0, stages)
    assert (after["rollout"]["enrolled"], after["rollout"]["excluded"]) == (0, 1)
    assert called_at < parse_timestamp(after["rollout"]["finishedAt"]) < await database_now(sql)
    assert (after["version"], after["updatedAt"]) == (before["version"], before["updatedAt"])
    assert await history_inconsistencies(sql) == {}


async def test_withdrawn_members_rejoin_with_the_next_plan(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    await create_completed(api, database)
    accepted_rollout(await cancel_rollout(api, withdraw=True))
    await advance_rollout(database, 1)
    assert (await read_rollout(api))["excluded"] == 0
    accepted_rollout(await set_rollout(api, {"percent": 10}))
    await advance_rollout(database, 1)
    assert await members(sql, 1) == by_rollout(expected_sample(1, users, 10))
    assert await history_counts(sql, 1) == {("JOINED", "ROLLOUT"): 8, ("LEFT", "ROLLOUT"): 4}


async def test_resuming_a_failed_withdrawal_continues_it(
    api: Api, sql: Sql, database: Database
) -> None:
    await store_users(sql, 40)
    await create_waiting(api, database)
    accepted_rollout(await cancel_rollout(api, withdraw=True))
    await fail_rollout(database)
    rollout = await read_rollout(api)
    assert summarize(rollout) == ("FAILED", 0, ["DONE", "SKIPPED"])
    assert rollout["failure"] == FAILURE
    rollout = accepted_rollout(await resume_rollout(api))
    assert summarize(rollout) == ("WITHDRAWING", 0, ["DONE", "SKIPPED"])
    assert rollout["failure"] is None
    await advance_rollout(database, 1)
    assert summarize(await read_rollout(api)) == ("CANCELLED", 0, ["DONE", "SKIPPED"])
    assert await members(sql, 1) == {}


async def test_failed_withdrawal_may_be_cancelled(api: Api, sql: Sql, database: Database) -> None:
    users = await store_users(sql, 40)
    await create_waiting(api, database)
    accepted_rollout(await cancel_rollout(api, withdraw=True))
    await fail_rollout(database)
    rollout = accepted_rollout(await cancel_rollout(api))
    assert rollout["status"] == "CANCELLED"
    assert rollout["failure"] is None
    assert await members(sql, 1) == by_rollout(expected_sample(1, users, 10))
