"""Invalid plans are rejected with all their errors and change nothing."""

import json
from datetime import datetime
from typing import Any

import pytest

from segmentql.rollouts.plan import ALLOWED_START
from segmentql.validators import (
    MAX_TTL_SECONDS,
    PERCENT_ALLOWED,
    SLUG_ALLOWED,
    STAGE_DELAY_ALLOWED,
    TTL_ALLOWED,
    VERSION_ALLOWED,
)
from tests.back_dating import all_rows
from tests.conftest import Api, Sql
from tests.rollouts.graphql_client import (
    OPERATIONS,
    accepted_rollout,
    rejection_errors,
    set_rollout,
)
from tests.timeline import HOUR, MICROSECOND, SECOND, database_now

EITHER = "either `percent` or `stages`"
AT_MOST_ONE = "at most one of `startsAt` and `afterSeconds`"
EITHER_TIME = "`startsAt` or `afterSeconds`"
ONE_TO_FIFTY = "1 to 50 stages"
AFTER_PREVIOUS = "a time after the start of the previous stage"
AFTER_LAST = "a time after the last stage starts"

PlanErrors = list[tuple[str, list[str], str]]
"""Code, path and allowed values of each error."""


async def plan_errors(api: Api, sql: Sql, rollout: dict[str, Any]) -> PlanErrors:
    """Return the errors of a plan, which are the same for `createSegment` and `setRollout`."""
    errors_by_mutation = []
    for mutation, slug in (("createSegment", "NEW"), ("setRollout", "A")):
        returned_errors = await rejection_errors(api, sql, mutation, slug=slug, rollout=rollout)
        assert [error["__typename"] for error in returned_errors] == ["InvalidInput"] * len(
            returned_errors
        )
        for error in returned_errors:
            assert error["message"].startswith(f"{'.'.join(error['path'])} is not valid: ")
            assert error["message"].endswith(f". Allowed: {error['allowed']}.")
        errors_by_mutation.append(
            [(error["code"], error["path"], error["allowed"]) for error in returned_errors]
        )
    create_errors, set_errors = errors_by_mutation
    assert create_errors == set_errors
    return create_errors


def invalid(*path: str, allowed: str) -> tuple[str, list[str], str]:
    return ("INVALID_INPUT", ["rollout", *path], allowed)


@pytest.mark.parametrize("percent", [-1, -0.001, 100.001, 33.3333, 0.0001, 1e300, 100.000001, 1e-9])
async def test_invalid_percent_is_rejected_in_every_field(
    planned: Api, sql: Sql, percent: float
) -> None:
    assert await plan_errors(planned, sql, {"percent": percent}) == [
        invalid("percent", allowed=PERCENT_ALLOWED)
    ]
    stages = [{"percent": 1}, {"percent": percent, "afterSeconds": 1}, {"percent": percent}]
    assert await plan_errors(planned, sql, {"stages": stages}) == [
        invalid("stages", "1", "percent", allowed=PERCENT_ALLOWED),
        invalid("stages", "2", allowed=EITHER_TIME),
        invalid("stages", "2", "percent", allowed=PERCENT_ALLOWED),
    ]


async def test_error_names_the_value_and_what_is_allowed(planned: Api, sql: Sql) -> None:
    assert await rejection_errors(
        planned, sql, "setRollout", slug="A", rollout={"percent": 33.3333}
    ) == [
        {
            "__typename": "InvalidInput",
            "code": "INVALID_INPUT",
            "message": "rollout.percent is not valid: 33.3333 has more than 3 decimals."
            " Allowed: 0 to 100 with up to 3 decimals.",
            "path": ["rollout", "percent"],
            "allowed": "0 to 100 with up to 3 decimals",
        }
    ]


@pytest.mark.parametrize("mutation", ["createSegment", "setRollout"])
async def test_infinite_number_is_rejected(planned: Api, sql: Sql, mutation: str) -> None:
    """GraphQL has no infinity, but a literal may be too large for a float."""
    before = await all_rows(sql)
    for literal in ("1e999", "-1e999"):
        data = await planned(
            f'mutation {{ {mutation}(input: {{slug: "B", rollout: {{percent: {literal}}}}}) '
            "{ errors { code path } } }"
        )
        assert data[mutation] == {
            "errors": [{"code": "INVALID_INPUT", "path": ["rollout", "percent"]}]
        }
    assert await all_rows(sql) == before


@pytest.mark.parametrize("mutation", ["createSegment", "setRollout"])
async def test_value_that_is_not_a_number_is_a_bad_request(
    planned: Api, sql: Sql, mutation: str
) -> None:
    before = await all_rows(sql)
    for value in ("NaN", "50", True, [50]):
        error = await planned.error(
            OPERATIONS[mutation], input={"slug": "A", "rollout": {"percent": value}}
        )
        assert error["extensions"]["code"] == "BAD_REQUEST", value
        assert error["extensions"]["argument"] == "input.rollout.percent", value
    for value in ("NaN", "Infinity", "-Infinity", "1e999"):
        body = json.dumps(
            {
                "query": OPERATIONS[mutation],
                "variables": {"input": {"slug": "A", "rollout": {"percent": "HERE"}}},
            }
        ).replace('"HERE"', value)
        response = await planned.http.post(
            "/graphql", content=body, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 400
        assert response.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"
    assert await all_rows(sql) == before


@pytest.mark.parametrize("stages", [[], [{"percent": 50}], [{"percent": -1}] * 51])
async def test_percent_together_with_stages_is_rejected(
    planned: Api, sql: Sql, stages: list[dict[str, Any]]
) -> None:
    assert await plan_errors(planned, sql, {"percent": 50, "stages": stages}) == [
        invalid("stages", allowed=EITHER)
    ]


@pytest.mark.parametrize(
    "rollout",
    [
        {},
        {"percent": None},
        {"stages": None},
        {"percent": None, "stages": None},
        {"enrollNewUsers": False},
    ],
)
async def test_neither_percent_nor_stages_is_rejected(
    planned: Api, sql: Sql, rollout: dict[str, Any]
) -> None:
    assert await plan_errors(planned, sql, rollout) == [invalid(allowed=EITHER)]


@pytest.mark.parametrize("count", [0, 51, 500])
async def test_wrong_number_of_stages_is_rejected_before_validating_each(
    planned: Api, sql: Sql, count: int
) -> None:
    assert await plan_errors(planned, sql, {"stages": [{"percent": -1}] * count}) == [
        invalid("stages", allowed=ONE_TO_FIFTY)
    ]


async def test_two_times_for_one_stage_are_rejected(planned: Api, sql: Sql) -> None:
    twice = {"percent": 1, "startsAt": "2020-01-01T00:00:00Z", "afterSeconds": 5}
    assert await plan_errors(planned, sql, {"stages": [twice, twice]}) == [
        invalid("stages", "0", "afterSeconds", allowed=AT_MOST_ONE),
        invalid("stages", "1", "afterSeconds", allowed=AT_MOST_ONE),
    ]


async def test_later_stage_without_a_time_is_rejected(planned: Api, sql: Sql) -> None:
    stages: list[dict[str, Any]] = [
        {"percent": 1},
        {"percent": 2},
        {"percent": 3, "startsAt": None, "afterSeconds": None},
    ]
    assert await plan_errors(planned, sql, {"stages": stages}) == [
        invalid("stages", "1", allowed=EITHER_TIME),
        invalid("stages", "2", allowed=EITHER_TIME),
    ]


async def test_after_seconds_out_of_range_is_rejected(planned: Api, sql: Sql) -> None:
    for seconds in (-1, MAX_TTL_SECONDS + 1, 2**31 - 1, -(2**31)):
        stages = [{"percent": 1, "afterSeconds": seconds}, {"percent": 2, "afterSeconds": seconds}]
        assert await plan_errors(planned, sql, {"stages": stages}) == [
            invalid("stages", "0", "afterSeconds", allowed=STAGE_DELAY_ALLOWED),
            invalid("stages", "1", "afterSeconds", allowed=STAGE_DELAY_ALLOWED),
        ], seconds


async def test_stages_out_of_order_are_rejected(planned: Api, sql: Sql) -> None:
    now = await database_now(sql)
    first, second = (now + HOUR).isoformat(), (now + HOUR - MICROSECOND).isoformat()
    for late in (first, second):
        stages = [{"percent": 1, "startsAt": first}, {"percent": 2, "startsAt": late}]
        assert await plan_errors(planned, sql, {"stages": stages}) == [
            invalid("stages", "1", "startsAt", allowed=AFTER_PREVIOUS)
        ]
    stages = [{"percent": 1}, {"percent": 2, "afterSeconds": 0}]
    assert await plan_errors(planned, sql, {"stages": stages}) == [
        invalid("stages", "1", "afterSeconds", allowed=AFTER_PREVIOUS)
    ]
    stages = [{"percent": 1}, {"percent": 2, "startsAt": now.isoformat()}]
    assert await plan_errors(planned, sql, {"stages": stages}) == [
        invalid("stages", "1", "startsAt", allowed=AFTER_PREVIOUS)
    ]


async def test_stages_more_than_ten_years_away_are_rejected(planned: Api, sql: Sql) -> None:
    now = await database_now(sql)
    span = MAX_TTL_SECONDS * SECOND
    for start in (now + span + HOUR, now - span - HOUR):
        stages = [{"percent": 1, "startsAt": start.isoformat()}]
        assert await plan_errors(planned, sql, {"stages": stages}) == [
            invalid("stages", "0", "startsAt", allowed=ALLOWED_START)
        ]
    # Each delay is in range, but not their sum.
    half = {"percent": 1, "afterSeconds": MAX_TTL_SECONDS // 2 + 1}
    assert await plan_errors(planned, sql, {"stages": [half, half]}) == [
        invalid("stages", "1", "afterSeconds", allowed=ALLOWED_START)
    ]


async def test_expiry_out_of_range_is_rejected(planned: Api, sql: Sql) -> None:
    now = await database_now(sql)
    for end in (
        now - SECOND,
        now,
        now + MAX_TTL_SECONDS * SECOND + HOUR,
        datetime.min.replace(tzinfo=now.tzinfo),
        datetime.max.replace(tzinfo=now.tzinfo),
    ):
        returned_errors = await plan_errors(
            planned, sql, {"percent": 50, "expiresAt": end.isoformat()}
        )
        assert returned_errors == [invalid("expiresAt", allowed=TTL_ALLOWED)], end


async def test_expiry_not_after_the_last_stage_is_rejected(planned: Api, sql: Sql) -> None:
    last = await database_now(sql) + 2 * HOUR
    stages = [{"percent": 1}, {"percent": 2, "startsAt": last.isoformat()}]
    for end in (last, last - MICROSECOND, last - HOUR):
        returned_errors = await plan_errors(
            planned, sql, {"stages": stages, "expiresAt": end.isoformat()}
        )
        assert returned_errors == [invalid("expiresAt", allowed=AFTER_LAST)], end
    end = last + MICROSECOND
    accepted_rollout(await set_rollout(planned, {"stages": stages, "expiresAt": end.isoformat()}))


async def test_all_problems_of_a_plan_are_reported_together(planned: Api, sql: Sql) -> None:
    stages = [
        {"percent": -1, "startsAt": "2020-01-01T00:00:00Z", "afterSeconds": -1},
        {"percent": 100.001},
    ]
    given = {"slug": "A B", "rollout": {"stages": stages}, "expectedVersion": 0}
    returned_errors = await rejection_errors(planned, sql, "setRollout", **given)
    assert [(error["path"], error["allowed"]) for error in returned_errors] == [
        (["slug"], SLUG_ALLOWED),
        (["rollout", "stages", "0", "afterSeconds"], AT_MOST_ONE),
        (["rollout", "stages", "0", "percent"], PERCENT_ALLOWED),
        (["rollout", "stages", "0", "afterSeconds"], STAGE_DELAY_ALLOWED),
        (["rollout", "stages", "1"], EITHER_TIME),
        (["rollout", "stages", "1", "percent"], PERCENT_ALLOWED),
        (["expectedVersion"], VERSION_ALLOWED),
    ]


async def test_existing_slug_is_rejected_with_its_plan(planned: Api, sql: Sql) -> None:
    (error,) = await rejection_errors(
        planned, sql, "createSegment", slug="A", rollout={"percent": 1}
    )
    assert (error["code"], error["path"]) == ("SEGMENT_ALREADY_EXISTS", ["slug"])


@pytest.mark.parametrize("expected", [2, 7])
async def test_version_conflict_returns_the_current_segment(
    planned: Api, sql: Sql, expected: int
) -> None:
    given = {"slug": "A", "rollout": {"percent": 1}, "expectedVersion": expected}
    assert await rejection_errors(planned, sql, "setRollout", **given) == [
        {
            "__typename": "VersionConflict",
            "code": "VERSION_CONFLICT",
            "message": f"The segment has version 1, but expectedVersion is {expected}.",
            "path": ["expectedVersion"],
            "current": {"id": "seg_1", "slug": "A", "name": None, "version": 1},
        }
    ]


async def test_rejected_plan_does_not_affect_other_mutations(planned: Api, sql: Sql) -> None:
    data = await planned(
        """mutation {
          first: setRollout(input: {slug: "A", rollout: {percent: 1}}) { rollout { percent } }
          second: setRollout(input: {slug: "A", rollout: {percent: -1}}) { errors { code } }
          third: pauseRollout(input: {slug: "A"}) { rollout { percent status } }
        }"""
    )
    assert data == {
        "first": {"rollout": {"percent": 1}},
        "second": {"errors": [{"code": "INVALID_INPUT"}]},
        "third": {"rollout": {"percent": 1, "status": "PAUSED"}},
    }
