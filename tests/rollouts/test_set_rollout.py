"""`setRollout`, and `createSegment` with a rollout, return and store a plan."""

import asyncio
from datetime import datetime
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.rollouts.actors import advance_rollout
from tests.conftest import Api, Sql
from tests.operations import create_segment, delete_segment, make_segments, parse_timestamp
from tests.rollouts.graphql_client import (
    accepted_rollout,
    read_rollout,
    read_segment,
    set_rollout,
    summarize,
)
from tests.rollouts.helpers import expected_sample, members, store_users
from tests.rollouts.rollout_states import (
    CreateState,
    create_cancelled,
    create_completed,
    create_failed,
    create_failed_withdrawing,
    create_paused,
    create_running,
    create_sampled,
    create_scheduled,
    create_waiting,
    create_withdrawing,
)
from tests.timeline import HOUR, SECOND, database_now

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
"""A new rollout before any worker has run, without its percent and stages."""


def starts_of(rollout: Any) -> list[datetime]:
    return [parse_timestamp(of["startsAt"]) for of in rollout["stages"]]


# --- Results and stored data --------------------------------------------------------------------


async def test_create_segment_with_a_percent_returns_before_any_join(api: Api, sql: Sql) -> None:
    await store_users(sql, 10)
    before = await database_now(sql)
    payload = await create_segment(api, slug="A", rollout={"percent": 33.333})
    assert payload["errors"] == []
    segment = await read_segment(api)
    assert {field: segment[field] for field in payload["segment"]} == payload["segment"]
    assert (segment["version"], segment["memberCount"]) == (1, 0)
    assert segment["updatedAt"] == segment["createdAt"]
    (start,) = starts_of(segment["rollout"])
    assert before < start < await database_now(sql)
    (only,) = segment["rollout"]["stages"]
    assert segment["rollout"] == {**UNWORKED, "percent": 33.333, "stages": [only]}
    assert (only["percent"], only["status"]) == (33.333, "ACTIVE")


@pytest.mark.parametrize("null_fields", [{}, {"rollout": None}])
async def test_segment_created_without_a_rollout_has_none(
    api: Api, sql: Sql, null_fields: dict[str, None]
) -> None:
    payload = await create_segment(api, slug="A", **null_fields)
    assert payload["errors"] == []
    assert await read_rollout(api) is None
    assert await sql.fetchval("SELECT count(*) FROM rollouts") == 0


async def test_worker_progress_changes_neither_version_nor_updated_at(
    api: Api, sql: Sql, database: Database
) -> None:
    await store_users(sql, 10)
    await create_segment(api, slug="A", rollout={"percent": 50})
    before = await read_segment(api)
    await advance_rollout(database, 1)
    after = await read_segment(api)
    rollout = after["rollout"]
    started, finished = (
        parse_timestamp(rollout["startedAt"]),
        parse_timestamp(rollout["finishedAt"]),
    )
    assert starts_of(rollout)[0] < started < finished < await database_now(sql)
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


async def test_set_rollout_returns_the_rollout_and_bumps_the_version(api: Api, sql: Sql) -> None:
    await store_users(sql, 10)
    created = (await create_segment(api, slug="A", name="Name"))["segment"]
    payload = await set_rollout(api, {"percent": 12.5})
    rollout = accepted_rollout(payload)
    segment = payload["segment"]
    assert segment == {**created, "version": 2, "updatedAt": segment["updatedAt"]}
    assert (
        parse_timestamp(segment["updatedAt"])
        > starts_of(rollout)[0]
        > parse_timestamp(created["updatedAt"])
    )
    assert rollout == {**UNWORKED, "percent": 12.5, "stages": rollout["stages"]}
    assert await read_segment(api) == {**segment, "memberCount": 0, "rollout": rollout}
    # Setting the same percent again starts a new plan.
    repeated = await set_rollout(api, {"percent": 12.5})
    assert repeated["segment"]["version"] == 3
    assert repeated["segment"]["updatedAt"] > segment["updatedAt"]
    assert starts_of(repeated["rollout"])[0] > starts_of(rollout)[0]


async def test_new_plan_replaces_all_fields_of_the_old_one(api: Api, sql: Sql) -> None:
    end = (await database_now(sql) + 24 * HOUR).isoformat()
    await make_segments(api, "A")
    stages = [{"percent": 10}, {"percent": 20, "afterSeconds": 3600}]
    first = accepted_rollout(
        await set_rollout(api, {"stages": stages, "enrollNewUsers": False, "expiresAt": end})
    )
    assert first["enrollNewUsers"] is False
    assert parse_timestamp(first["expiresAt"]) == datetime.fromisoformat(end)
    assert len(first["stages"]) == 2
    second = accepted_rollout(await set_rollout(api, {"percent": 30}))
    assert second == {**UNWORKED, "percent": 30, "stages": second["stages"]}
    assert len(second["stages"]) == 1
    assert await sql.fetchval("SELECT count(*) FROM rollout_stages") == 1


async def test_recreated_segment_does_not_inherit_a_rollout(api: Api) -> None:
    await create_segment(api, slug="A", rollout={"percent": 50})
    await delete_segment(api, "A")
    await make_segments(api, "A")
    assert await read_rollout(api) is None
    assert accepted_rollout(await set_rollout(api, {"percent": 50}))["id"] == "rol_2"


async def test_stages_are_returned_with_start_times_in_utc(api: Api, sql: Sql) -> None:
    now = await database_now(sql)
    await make_segments(api, "A")
    stages = [
        {"percent": 1},
        {"percent": 10.125, "afterSeconds": 60},
        {"percent": 0, "startsAt": f"{(now + 2 * HOUR).strftime('%Y-%m-%dT%H:%M:%S.%f')}+00:00"},
        {"percent": 100, "startsAt": f"{(now + 5 * HOUR).strftime('%Y-%m-%dT%H:%M:%S')}+02:00"},
        {"percent": 50, "afterSeconds": 315_000_000},
    ]
    rollout = accepted_rollout(await set_rollout(api, {"stages": stages}))
    assert [of["percent"] for of in rollout["stages"]] == [1, 10.125, 0, 100, 50]
    assert [of["status"] for of in rollout["stages"]] == ["ACTIVE", *["PENDING"] * 4]
    first, *rest = starts_of(rollout)
    assert rest == [
        first + 60 * SECOND,
        now + 2 * HOUR,
        now.replace(microsecond=0) + 3 * HOUR,
        now.replace(microsecond=0) + 3 * HOUR + 315_000_000 * SECOND,
    ]


async def test_plan_may_have_fifty_stages(api: Api) -> None:
    await make_segments(api, "A")
    stages = [{"percent": number, "afterSeconds": 60} for number in range(1, 51)]
    rollout = accepted_rollout(await set_rollout(api, {"stages": stages}))
    assert summarize(rollout) == ("SCHEDULED", 0, ["PENDING"] * 50)
    starts = starts_of(rollout)
    assert starts == [starts[0] + number * 60 * SECOND for number in range(50)]


@pytest.mark.parametrize(
    "null_fields",
    [
        {"percent": 50, "stages": None, "enrollNewUsers": None, "expiresAt": None},
        {"percent": None, "stages": [{"percent": 50, "startsAt": None, "afterSeconds": None}]},
    ],
)
async def test_null_means_omitted(api: Api, null_fields: dict[str, Any]) -> None:
    await create_segment(api, slug="A", rollout=null_fields)
    await make_segments(api, "B")
    created, set_later = (
        await read_rollout(api, "A"),
        accepted_rollout(await set_rollout(api, null_fields, slug="B")),
    )
    for number, rollout in enumerate((created, set_later), start=1):
        assert rollout == {
            **UNWORKED,
            "id": f"rol_{number}",
            "percent": 50,
            "stages": rollout["stages"],
        }
        assert [of["percent"] for of in rollout["stages"]] == [50]


async def test_stage_may_set_either_time_and_leave_the_other_null(api: Api, sql: Sql) -> None:
    later = (await database_now(sql) + HOUR).isoformat()
    await make_segments(api, "A")
    stages = [
        {"percent": 1, "startsAt": later, "afterSeconds": None},
        {"percent": 2, "startsAt": None, "afterSeconds": 1},
    ]
    first, second = starts_of(accepted_rollout(await set_rollout(api, {"stages": stages})))
    assert (first, second) == (datetime.fromisoformat(later), first + SECOND)


# --- The expected version -----------------------------------------------------------------------


@pytest.mark.parametrize("expected", [1, None])
async def test_matching_or_missing_expected_version_is_accepted(
    api: Api, expected: int | None
) -> None:
    await make_segments(api, "A")
    payload = await set_rollout(api, {"percent": 50}, expectedVersion=expected)
    assert (payload["errors"], payload["segment"]["version"]) == ([], 2)


async def test_only_one_of_concurrent_plans_with_the_same_version_wins(api: Api) -> None:
    await make_segments(api, "A")
    payloads = await asyncio.gather(
        *(set_rollout(api, {"percent": number}, expectedVersion=1) for number in range(10))
    )
    (accepted,) = [payload for payload in payloads if not payload["errors"]]
    conflicts = [payload["errors"] for payload in payloads if payload["errors"]]
    assert [[error["code"] for error in errors] for errors in conflicts] == [
        ["VERSION_CONFLICT"]
    ] * 9
    segment = await read_segment(api)
    assert (segment["version"], segment["rollout"]["percent"]) == (
        2,
        accepted["rollout"]["percent"],
    )


async def test_last_of_concurrent_plans_without_a_version_wins(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    payloads = await asyncio.gather(
        *(set_rollout(api, {"percent": number}) for number in range(1, 11))
    )
    assert sorted(payload["segment"]["version"] for payload in payloads) == list(range(2, 12))
    (last,) = [payload for payload in payloads if payload["segment"]["version"] == 11]
    assert await read_rollout(api) == last["rollout"]
    assert await sql.fetchval("SELECT count(*) FROM rollout_stages") == 1


# --- Any status ---------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [30, 5])
@pytest.mark.parametrize(
    "state",
    [
        (create_scheduled, "SCHEDULED"),
        (create_running, "RUNNING"),
        (create_sampled, "RUNNING"),
        (create_waiting, "WAITING"),
        (create_paused, "PAUSED"),
        (create_completed, "COMPLETED"),
        (create_failed, "FAILED"),
        (create_withdrawing, "WITHDRAWING"),
        (create_failed_withdrawing, "FAILED"),
        (create_cancelled, "CANCELLED"),
    ],
)
async def test_plan_can_be_replaced_in_any_status(
    api: Api, sql: Sql, database: Database, state: tuple[CreateState, str], percent: int
) -> None:
    users = await store_users(sql, 40)
    create_state, status = state
    await create_state(api, database)
    assert (await read_rollout(api))["status"] == status
    enrolled = len(await members(sql, 1))
    rollout = accepted_rollout(await set_rollout(api, {"percent": percent}))
    assert rollout == {
        **UNWORKED,
        "percent": percent,
        "enrolled": enrolled,
        "stages": rollout["stages"],
    }
    await advance_rollout(database, 1)
    sample = expected_sample(1, users, percent)
    assert await members(sql, 1) == dict.fromkeys(sample, "ROLLOUT")
    finished = await read_rollout(api)
    assert summarize(finished) == ("COMPLETED", percent, ["DONE"])
    assert (finished["enrolled"], finished["usersSeen"]) == (len(users) * percent / 100, 40)
