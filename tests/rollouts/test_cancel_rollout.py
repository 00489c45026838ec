"""`cancelRollout`, with and without withdrawing: what it answers, and what comes of it."""

import pytest

from segmentql.adapters.database import Database
from segmentql.rollouts.actors import advance_rollout
from tests.conftest import Api, Sql
from tests.operations import change, delete_segment, moment
from tests.past import contents, let_pass
from tests.rollouts.graphql_client import (
    cancel_rollout,
    done,
    in_short,
    resume_rollout,
    rollout_of,
    segment_of,
    set_rollout,
)
from tests.rollouts.helpers import members, sample_of, store_users, written
from tests.rollouts.helpers import rollout_of as row_of
from tests.rollouts.rollout_states import (
    FAILURE,
    Bring,
    completed,
    fail,
    failed,
    paused,
    running,
    sampled,
    scheduled,
    waiting,
)
from tests.timeline import HOUR, clock, lies_of_history, recorded


def by_rollout(user_ids: set[int]) -> dict[int, str]:
    return dict.fromkeys(user_ids, "ROLLOUT")


BROUGHT: list[tuple[Bring, tuple[str, float, list[str]]]] = [
    (scheduled, ("SCHEDULED", 0, ["SKIPPED", "SKIPPED"])),
    (running, ("RUNNING", 10, ["SKIPPED", "SKIPPED"])),
    (sampled, ("RUNNING", 10, ["SKIPPED", "SKIPPED"])),
    (waiting, ("WAITING", 10, ["DONE", "SKIPPED"])),
    (paused, ("PAUSED", 10, ["DONE", "SKIPPED"])),
    (completed, ("COMPLETED", 10, ["DONE"])),
    (failed, ("FAILED", 10, ["SKIPPED", "SKIPPED"])),
]
"""How far a rollout may have come when it is cancelled: status and percent, and its stages then."""


@pytest.mark.parametrize(("bring", "then"), BROUGHT)
async def test_a_cancelled_rollout_keeps_who_is_in_and_its_percent_and_never_goes_on(
    api: Api,
    sql: Sql,
    database: Database,
    bring: Bring,
    then: tuple[str, float, list[str]],
) -> None:
    await store_users(sql, 40)
    await bring(api, database)
    status, percent, stages = then
    before = await segment_of(api)
    assert in_short(before["rollout"])[:2] == (status, percent)
    asked = await clock(sql)
    payload = await cancel_rollout(api)
    rollout = done(payload)
    assert in_short(rollout) == ("CANCELLED", percent, stages)
    assert asked < moment(rollout["finishedAt"]) < await clock(sql)
    same = ("id", "enrolled", "usersTotal", "usersSeen", "progress", "startedAt")
    assert {of: rollout[of] for of in same} == {of: before["rollout"][of] for of in same}
    assert rollout["failure"] is None
    assert await segment_of(api) == {**before, "rollout": rollout}
    assert {field: before[field] for field in payload["segment"]} == payload["segment"]
    # No worker does anything, now or when the next stage would have been due.
    for _ in range(2):
        everything = await contents(sql)
        await advance_rollout(database, 1)
        assert await contents(sql) == everything
        assert in_short(await rollout_of(api)) == ("CANCELLED", percent, stages)
        await let_pass(sql, 24 * HOUR)


async def test_not_to_withdraw_may_be_said_or_null(api: Api, sql: Sql, database: Database) -> None:
    await store_users(sql, 40)
    await waiting(api, database)
    for withdraw in (False, None):
        rollout = done(await cancel_rollout(api, withdraw=withdraw))
        assert (rollout["status"], rollout["percent"], rollout["enrolled"]) == ("CANCELLED", 10, 4)
        done(await set_rollout(api, {"percent": 10}))


async def test_what_a_pause_kept_from_coming_does_not_come_by_cancelling(
    api: Api, sql: Sql, database: Database
) -> None:
    await store_users(sql, 40)
    await paused(api, database)
    await let_pass(sql, 24 * HOUR)
    assert in_short(done(await cancel_rollout(api))) == ("CANCELLED", 10, ["DONE", "SKIPPED"])
    assert (await segment_of(api))["memberCount"] == 4


async def test_what_a_pause_kept_from_coming_does_not_come_by_deleting_the_segment(
    api: Api, sql: Sql, database: Database
) -> None:
    await paused(api, database)
    await let_pass(sql, 24 * HOUR)
    await delete_segment(api, "A")
    rollout = await row_of(database, 1)
    assert (rollout.status, rollout.current) == ("CANCELLED", 1)


@pytest.mark.parametrize(("bring", "then"), BROUGHT)
async def test_to_withdraw_takes_out_exactly_those_whom_the_rollout_brought_in(
    api: Api,
    sql: Sql,
    database: Database,
    bring: Bring,
    then: tuple[str, float, list[str]],
) -> None:
    users = await store_users(sql, 40)
    await bring(api, database)
    _, _, stages = then
    sample = sorted(sample_of(1, users, 10))
    outside = min(set(users) - set(sample))
    # One of the sample is kept by hand, whether or not it was in; one is put in, one left out.
    for user_id, given in (
        (sample[0], {"add": ["A"]}),
        (outside, {"add": ["A"]}),
        (sample[1], {"remove": ["A"]}),
    ):
        await change(api, user_id, **given)
    before = await segment_of(api)
    payload = await cancel_rollout(api, withdraw=True)
    rollout = done(payload)
    assert in_short(rollout) == ("WITHDRAWING", 0, stages)
    assert (rollout["finishedAt"], rollout["failure"]) == (None, None)
    assert rollout["enrolled"] == before["rollout"]["enrolled"]
    assert {field: before[field] for field in payload["segment"]} == payload["segment"]
    withdrawn = before["rollout"]["enrolled"]
    asked = await clock(sql)
    await advance_rollout(database, 1)
    assert await members(sql, 1) == {sample[0]: "MANUAL", outside: "MANUAL"}
    left = [entry for entry in await recorded(sql) if entry.operation == "LEFT"]
    by_hand = [entry for entry in left if entry.cause == "MANUAL"]
    assert {entry.user_id for entry in by_hand} <= {sample[1]}
    taken_out = [entry for entry in left if entry.cause == "ROLLOUT"]
    assert len(taken_out) == withdrawn == len(left) - len(by_hand)
    assert {entry.user_id for entry in taken_out} <= set(sample)
    assert all(entry.at > asked for entry in taken_out)
    after = await segment_of(api)
    assert in_short(after["rollout"]) == ("CANCELLED", 0, stages)
    assert (after["rollout"]["enrolled"], after["rollout"]["excluded"]) == (0, 1)
    assert asked < moment(after["rollout"]["finishedAt"]) < await clock(sql)
    assert (after["version"], after["updatedAt"]) == (before["version"], before["updatedAt"])
    assert await lies_of_history(sql) == {}


async def test_who_was_withdrawn_is_not_excluded_and_comes_back_with_the_next_plan(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    await completed(api, database)
    done(await cancel_rollout(api, withdraw=True))
    await advance_rollout(database, 1)
    assert (await rollout_of(api))["excluded"] == 0
    done(await set_rollout(api, {"percent": 10}))
    await advance_rollout(database, 1)
    assert await members(sql, 1) == by_rollout(sample_of(1, users, 10))
    assert await written(sql, 1) == {("JOINED", "ROLLOUT"): 8, ("LEFT", "ROLLOUT"): 4}


async def test_what_fails_while_it_withdraws_goes_on_withdrawing_when_it_is_resumed(
    api: Api, sql: Sql, database: Database
) -> None:
    await store_users(sql, 40)
    await waiting(api, database)
    done(await cancel_rollout(api, withdraw=True))
    await fail(database)
    rollout = await rollout_of(api)
    assert in_short(rollout) == ("FAILED", 0, ["DONE", "SKIPPED"])
    assert rollout["failure"] == FAILURE
    rollout = done(await resume_rollout(api))
    assert in_short(rollout) == ("WITHDRAWING", 0, ["DONE", "SKIPPED"])
    assert rollout["failure"] is None
    await advance_rollout(database, 1)
    assert in_short(await rollout_of(api)) == ("CANCELLED", 0, ["DONE", "SKIPPED"])
    assert await members(sql, 1) == {}


async def test_what_fails_while_it_withdraws_may_be_left_as_it_is(
    api: Api, sql: Sql, database: Database
) -> None:
    users = await store_users(sql, 40)
    await waiting(api, database)
    done(await cancel_rollout(api, withdraw=True))
    await fail(database)
    rollout = done(await cancel_rollout(api))
    assert rollout["status"] == "CANCELLED"
    assert rollout["failure"] is None
    assert await members(sql, 1) == by_rollout(sample_of(1, users, 10))
