"""`setRollout`, and `createSegment` with a rollout: what they answer and store."""

import asyncio
from datetime import datetime
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.rollouts.actors import advance_rollout
from tests.conftest import Api, Sql
from tests.operations import create_segment, delete_segment, make_segments, moment
from tests.rollouts.graphql_client import done, in_short, rollout_of, segment_of, set_rollout
from tests.rollouts.helpers import members, sample_of, store_users
from tests.rollouts.rollout_states import (
    Bring,
    cancelled,
    completed,
    failed,
    failed_withdrawing,
    paused,
    running,
    sampled,
    scheduled,
    waiting,
    withdrawing,
)
from tests.timeline import HOUR, SECOND, clock

UNWORKED = {
    "id": "rol_1",
    "status": "RUNNING",
    "enrollNewUsers": True,
    "expiresAt": None,
    "usersTotal": 0,
    "usersSeen": 0,
    "progress": 0,
    "enrolled": 0,
    "excluded": 0,
    "startedAt": None,
    "finishedAt": None,
    "failure": None,
}
"""What is told of a new plan before a worker came by; its percent and stages aside."""


def starts_of(rollout: Any) -> list[datetime]:
    return [moment(of["startsAt"]) for of in rollout["stages"]]


# --- What is told and stored --------------------------------------------------------------------


async def test_a_segment_made_with_a_percent_answers_before_anybody_is_in(
    api: Api, sql: Sql
) -> None:
    await store_users(sql, 10)
    before = await clock(sql)
    payload = await create_segment(api, slug="A", rollout={"percent": 33.333})
    assert payload["errors"] == []
    segment = await segment_of(api)
    assert {field: segment[field] for field in payload["segment"]} == payload["segment"]
    assert (segment["version"], segment["memberCount"]) == (1, 0)
    assert segment["updatedAt"] == segment["createdAt"]
    (start,) = starts_of(segment["rollout"])
    assert before < start < await clock(sql)
    (only,) = segment["rollout"]["stages"]
    assert segment["rollout"] == {**UNWORKED, "percent": 33.333, "stages": [only]}
    assert (only["percent"], only["status"]) == (33.333, "ACTIVE")


@pytest.mark.parametrize("given", [{}, {"rollout": None}])
async def test_a_segment_made_without_a_rollout_has_none(
    api: Api, sql: Sql, given: dict[str, None]
) -> None:
    payload = await create_segment(api, slug="A", **given)
    assert payload["errors"] == []
    assert await rollout_of(api) is None
    assert await sql.fetchval("SELECT count(*) FROM rollouts") == 0


async def test_what_workers_did_is_told_and_moves_neither_version_nor_update(
    api: Api, sql: Sql, database: Database
) -> None:
    await store_users(sql, 10)
    await create_segment(api, slug="A", rollout={"percent": 50})
    before = await segment_of(api)
    await advance_rollout(database, 1)
    after = await segment_of(api)
    rollout = after["rollout"]
    started, finished = moment(rollout["startedAt"]), moment(rollout["finishedAt"])
    assert starts_of(rollout)[0] < started < finished < await clock(sql)
    assert after == {
        **before,
        "memberCount": 5,
        "rollout": {
            **before["rollout"],
            "status": "COMPLETED",
            "stages": [{**before["rollout"]["stages"][0], "status": "DONE"}],
            "usersTotal": 10,
            "usersSeen": 10,
            "progress": 1,
            "enrolled": 5,
            "startedAt": rollout["startedAt"],
            "finishedAt": rollout["finishedAt"],
        },
    }


async def test_setting_a_rollout_tells_what_is_then_read_and_counts_as_a_change_of_the_segment(
    api: Api, sql: Sql
) -> None:
    await store_users(sql, 10)
    made = (await create_segment(api, slug="A", name="Name"))["segment"]
    payload = await set_rollout(api, {"percent": 12.5})
    rollout = done(payload)
    segment = payload["segment"]
    assert segment == {**made, "version": 2, "updatedAt": segment["updatedAt"]}
    assert moment(segment["updatedAt"]) > starts_of(rollout)[0] > moment(made["updatedAt"])
    assert rollout == {**UNWORKED, "percent": 12.5, "stages": rollout["stages"]}
    assert await segment_of(api) == {**segment, "memberCount": 0, "rollout": rollout}
    # The same again is another plan, which begins anew.
    again = await set_rollout(api, {"percent": 12.5})
    assert again["segment"]["version"] == 3
    assert again["segment"]["updatedAt"] > segment["updatedAt"]
    assert starts_of(again["rollout"])[0] > starts_of(rollout)[0]


async def test_a_new_plan_replaces_the_whole_of_the_old_one_and_what_it_omits_is_default(
    api: Api, sql: Sql
) -> None:
    end = (await clock(sql) + 24 * HOUR).isoformat()
    await make_segments(api, "A")
    stages = [{"percent": 10}, {"percent": 20, "afterSeconds": 3600}]
    first = done(
        await set_rollout(api, {"stages": stages, "enrollNewUsers": False, "expiresAt": end})
    )
    assert first["enrollNewUsers"] is False
    assert moment(first["expiresAt"]) == datetime.fromisoformat(end)
    assert len(first["stages"]) == 2
    second = done(await set_rollout(api, {"percent": 30}))
    assert second == {**UNWORKED, "percent": 30, "stages": second["stages"]}
    assert len(second["stages"]) == 1
    assert await sql.fetchval("SELECT count(*) FROM rollout_stages") == 1


async def test_a_segment_made_anew_under_a_slug_has_no_rollout_of_the_old_one(api: Api) -> None:
    await create_segment(api, slug="A", rollout={"percent": 50})
    await delete_segment(api, "A")
    await make_segments(api, "A")
    assert await rollout_of(api) is None
    assert done(await set_rollout(api, {"percent": 50}))["id"] == "rol_2"


async def test_stages_are_told_with_their_moments_in_utc(api: Api, sql: Sql) -> None:
    now = await clock(sql)
    await make_segments(api, "A")
    stages = [
        {"percent": 1},
        {"percent": 10.125, "afterSeconds": 60},
        {"percent": 0, "startsAt": f"{(now + 2 * HOUR).strftime('%Y-%m-%dT%H:%M:%S.%f')}+00:00"},
        {"percent": 100, "startsAt": f"{(now + 5 * HOUR).strftime('%Y-%m-%dT%H:%M:%S')}+02:00"},
        {"percent": 50, "afterSeconds": 315_000_000},
    ]
    rollout = done(await set_rollout(api, {"stages": stages}))
    assert [of["percent"] for of in rollout["stages"]] == [1, 10.125, 0, 100, 50]
    assert [of["status"] for of in rollout["stages"]] == ["ACTIVE", *["PENDING"] * 4]
    first, *rest = starts_of(rollout)
    assert rest == [
        first + 60 * SECOND,
        now + 2 * HOUR,
        now.replace(microsecond=0) + 3 * HOUR,
        now.replace(microsecond=0) + 3 * HOUR + 315_000_000 * SECOND,
    ]


async def test_a_plan_may_have_fifty_stages(api: Api) -> None:
    await make_segments(api, "A")
    stages = [{"percent": number, "afterSeconds": 60} for number in range(1, 51)]
    rollout = done(await set_rollout(api, {"stages": stages}))
    assert in_short(rollout) == ("SCHEDULED", 0, ["PENDING"] * 50)
    starts = starts_of(rollout)
    assert starts == [starts[0] + number * 60 * SECOND for number in range(50)]


@pytest.mark.parametrize(
    "given",
    [
        {"percent": 50, "stages": None, "enrollNewUsers": None, "expiresAt": None},
        {"percent": None, "stages": [{"percent": 50, "startsAt": None, "afterSeconds": None}]},
    ],
)
async def test_null_is_what_is_left_out(api: Api, given: dict[str, Any]) -> None:
    await create_segment(api, slug="A", rollout=given)
    await make_segments(api, "B")
    made, set_later = await rollout_of(api, "A"), done(await set_rollout(api, given, slug="B"))
    for number, rollout in enumerate((made, set_later), start=1):
        assert rollout == {
            **UNWORKED,
            "id": f"rol_{number}",
            "percent": 50,
            "stages": rollout["stages"],
        }
        assert [of["percent"] for of in rollout["stages"]] == [50]


async def test_a_stage_may_name_either_time_and_leave_the_other_null(api: Api, sql: Sql) -> None:
    later = (await clock(sql) + HOUR).isoformat()
    await make_segments(api, "A")
    stages = [
        {"percent": 1, "startsAt": later, "afterSeconds": None},
        {"percent": 2, "startsAt": None, "afterSeconds": 1},
    ]
    first, second = starts_of(done(await set_rollout(api, {"stages": stages})))
    assert (first, second) == (datetime.fromisoformat(later), first + SECOND)


# --- The expected version -----------------------------------------------------------------------


@pytest.mark.parametrize("expected", [1, None])
async def test_the_expected_version_or_none_lets_a_plan_through(
    api: Api, expected: int | None
) -> None:
    await make_segments(api, "A")
    payload = await set_rollout(api, {"percent": 50}, expectedVersion=expected)
    assert (payload["errors"], payload["segment"]["version"]) == ([], 2)


async def test_of_many_who_expect_the_same_version_one_sets_the_plan(api: Api) -> None:
    await make_segments(api, "A")
    payloads = await asyncio.gather(
        *(set_rollout(api, {"percent": number}, expectedVersion=1) for number in range(10))
    )
    (accepted,) = [payload for payload in payloads if not payload["errors"]]
    refused = [payload["errors"] for payload in payloads if payload["errors"]]
    assert [[error["code"] for error in errors] for errors in refused] == [["VERSION_CONFLICT"]] * 9
    segment = await segment_of(api)
    assert (segment["version"], segment["rollout"]["percent"]) == (
        2,
        accepted["rollout"]["percent"],
    )


async def test_of_many_who_expect_none_each_sets_its_plan_and_the_last_one_stands(
    api: Api, sql: Sql
) -> None:
    await make_segments(api, "A")
    payloads = await asyncio.gather(
        *(set_rollout(api, {"percent": number}) for number in range(1, 11))
    )
    assert sorted(payload["segment"]["version"] for payload in payloads) == list(range(2, 12))
    (last,) = [payload for payload in payloads if payload["segment"]["version"] == 11]
    assert await rollout_of(api) == last["rollout"]
    assert await sql.fetchval("SELECT count(*) FROM rollout_stages") == 1


# --- From any status ----------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [30, 5])
@pytest.mark.parametrize(
    "far",
    [
        (scheduled, "SCHEDULED"),
        (running, "RUNNING"),
        (sampled, "RUNNING"),
        (waiting, "WAITING"),
        (paused, "PAUSED"),
        (completed, "COMPLETED"),
        (failed, "FAILED"),
        (withdrawing, "WITHDRAWING"),
        (failed_withdrawing, "FAILED"),
        (cancelled, "CANCELLED"),
    ],
)
async def test_a_plan_can_be_replaced_whatever_became_of_it_and_is_then_carried_out(
    api: Api, sql: Sql, database: Database, far: tuple[Bring, str], percent: int
) -> None:
    users = await store_users(sql, 40)
    bring, status = far
    await bring(api, database)
    assert (await rollout_of(api))["status"] == status
    enrolled = len(await members(sql, 1))
    rollout = done(await set_rollout(api, {"percent": percent}))
    assert rollout == {
        **UNWORKED,
        "percent": percent,
        "enrolled": enrolled,
        "stages": rollout["stages"],
    }
    await advance_rollout(database, 1)
    sample = sample_of(1, users, percent)
    assert await members(sql, 1) == dict.fromkeys(sample, "ROLLOUT")
    finished = await rollout_of(api)
    assert in_short(finished) == ("COMPLETED", percent, ["DONE"])
    assert (finished["enrolled"], finished["usersSeen"]) == (len(users) * percent / 100, 40)
