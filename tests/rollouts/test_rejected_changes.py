"""What a rollout's segment or status does not allow is refused, and nothing is changed."""

from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.values import SLUG_ALLOWED
from tests.bad_values import BAD_SLUGS
from tests.conftest import Api, Sql
from tests.operations import delete_segment, make_segments
from tests.rollouts.graphql_client import errors_of, rollout_of
from tests.rollouts.helpers import store_users
from tests.rollouts.rollout_states import (
    Bring,
    cancelled,
    completed,
    failed,
    failed_withdrawing,
    paused,
    running,
    scheduled,
    waiting,
    withdrawing,
)

ON_A_SEGMENT: dict[str, dict[str, Any]] = {
    "setRollout": {"rollout": {"percent": 1}},
    "pauseRollout": {},
    "resumeRollout": {},
    "cancelRollout": {"withdraw": True},
}


@pytest.mark.parametrize("mutation", ON_A_SEGMENT)
async def test_a_slug_that_no_segment_bears_or_only_a_deleted_one_is_not_found(
    planned: Api, sql: Sql, mutation: str
) -> None:
    await delete_segment(planned, "A")
    for slug in ("A", "a", "NOPE"):
        told = await errors_of(planned, sql, mutation, slug=slug, **ON_A_SEGMENT[mutation])
        assert told == [
            {
                "__typename": "SegmentNotFound",
                "code": "SEGMENT_NOT_FOUND",
                "message": f"No segment bears: {slug}.",
                "path": ["slug"],
                "slugs": [slug],
            }
        ]


@pytest.mark.parametrize("mutation", ON_A_SEGMENT)
async def test_what_is_not_a_slug_is_refused(planned: Api, sql: Sql, mutation: str) -> None:
    for slug in BAD_SLUGS:
        (error,) = await errors_of(planned, sql, mutation, slug=slug, **ON_A_SEGMENT[mutation])
        assert (error["code"], error["path"], error["allowed"]) == (
            "INVALID_INPUT",
            ["slug"],
            SLUG_ALLOWED,
        ), ascii(slug)


@pytest.mark.parametrize("mutation", ["pauseRollout", "resumeRollout", "cancelRollout"])
async def test_a_segment_without_a_rollout_has_none_to_stop(
    planned: Api, sql: Sql, mutation: str
) -> None:
    await make_segments(planned, "B")
    assert await errors_of(planned, sql, mutation, slug="B", **ON_A_SEGMENT[mutation]) == [
        {
            "__typename": "RolloutNotFound",
            "code": "ROLLOUT_NOT_FOUND",
            "message": 'The segment "B" has no rollout.',
            "path": ["slug"],
        }
    ]


@pytest.mark.parametrize(
    ("far", "mutations"),
    [
        ((scheduled, "SCHEDULED"), ["resumeRollout"]),
        ((running, "RUNNING"), ["resumeRollout"]),
        ((waiting, "WAITING"), ["resumeRollout"]),
        ((paused, "PAUSED"), ["pauseRollout"]),
        ((completed, "COMPLETED"), ["pauseRollout", "resumeRollout"]),
        ((failed, "FAILED"), ["pauseRollout"]),
        ((failed_withdrawing, "FAILED"), ["pauseRollout"]),
        ((withdrawing, "WITHDRAWING"), ["pauseRollout", "resumeRollout", "cancelRollout"]),
        ((cancelled, "CANCELLED"), ["pauseRollout", "resumeRollout", "cancelRollout"]),
    ],
)
async def test_what_a_status_does_not_allow_is_refused_with_that_status(
    api: Api, sql: Sql, database: Database, far: tuple[Bring, str], mutations: list[str]
) -> None:
    await store_users(sql, 20)
    bring, status = far
    await bring(api, database)
    assert (await rollout_of(api))["status"] == status
    for mutation in mutations:
        given = [{"withdraw": False}, {"withdraw": True}] if mutation == "cancelRollout" else [{}]
        for withdraws in given:
            assert await errors_of(api, sql, mutation, slug="A", **withdraws) == [
                {
                    "__typename": "RolloutStateConflict",
                    "code": "ROLLOUT_STATE_CONFLICT",
                    "message": f"The rollout's status {status} does not allow this change.",
                    "path": ["slug"],
                    "status": status,
                }
            ]
