"""Changes that the segment or the rollout's status does not allow are rejected."""

from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.validators import SLUG_ALLOWED
from tests.conftest import Api, Sql
from tests.invalid_values import BAD_SLUGS
from tests.operations import delete_segment, make_segments
from tests.rollouts.graphql_client import read_rollout, rejection_errors
from tests.rollouts.helpers import store_users
from tests.rollouts.rollout_states import (
    CreateState,
    create_cancelled,
    create_completed,
    create_failed,
    create_failed_withdrawing,
    create_paused,
    create_running,
    create_scheduled,
    create_waiting,
    create_withdrawing,
)

ON_A_SEGMENT: dict[str, dict[str, Any]] = {
    "setRollout": {"rollout": {"percent": 1}},
    "pauseRollout": {},
    "resumeRollout": {},
    "cancelRollout": {"withdraw": True},
}


@pytest.mark.parametrize("mutation", ON_A_SEGMENT)
async def test_unknown_or_deleted_slug_is_not_found(planned: Api, sql: Sql, mutation: str) -> None:
    await delete_segment(planned, "A")
    for slug in ("A", "a", "NOPE"):
        returned_errors = await rejection_errors(
            planned, sql, mutation, slug=slug, **ON_A_SEGMENT[mutation]
        )
        assert returned_errors == [
            {
                "__typename": "SegmentNotFound",
                "code": "SEGMENT_NOT_FOUND",
                "message": f'No segment has the slug "{slug}".',
                "path": ["slug"],
                "slugs": [slug],
            }
        ]


@pytest.mark.parametrize("mutation", ON_A_SEGMENT)
async def test_invalid_slug_is_rejected(planned: Api, sql: Sql, mutation: str) -> None:
    for slug in BAD_SLUGS:
        (error,) = await rejection_errors(
            planned, sql, mutation, slug=slug, **ON_A_SEGMENT[mutation]
        )
        assert (error["code"], error["path"], error["allowed"]) == (
            "INVALID_INPUT",
            ["slug"],
            SLUG_ALLOWED,
        ), ascii(slug)


@pytest.mark.parametrize("mutation", ["pauseRollout", "resumeRollout", "cancelRollout"])
async def test_segment_without_a_rollout_is_rejected(planned: Api, sql: Sql, mutation: str) -> None:
    await make_segments(planned, "B")
    assert await rejection_errors(planned, sql, mutation, slug="B", **ON_A_SEGMENT[mutation]) == [
        {
            "__typename": "RolloutNotFound",
            "code": "ROLLOUT_NOT_FOUND",
            "message": 'The segment "B" has no rollout.',
            "path": ["slug"],
        }
    ]


@pytest.mark.parametrize(
    ("state", "mutations"),
    [
        ((create_scheduled, "SCHEDULED"), ["resumeRollout"]),
        ((create_running, "RUNNING"), ["resumeRollout"]),
        ((create_waiting, "WAITING"), ["resumeRollout"]),
        ((create_paused, "PAUSED"), ["pauseRollout"]),
        ((create_completed, "COMPLETED"), ["pauseRollout", "resumeRollout"]),
        ((create_failed, "FAILED"), ["pauseRollout"]),
        ((create_failed_withdrawing, "FAILED"), ["pauseRollout"]),
        ((create_withdrawing, "WITHDRAWING"), ["pauseRollout", "resumeRollout", "cancelRollout"]),
        ((create_cancelled, "CANCELLED"), ["pauseRollout", "resumeRollout", "cancelRollout"]),
    ],
)
async def test_change_not_allowed_by_the_status_is_rejected(
    api: Api, sql: Sql, database: Database, state: tuple[CreateState, str], mutations: list[str]
) -> None:
    await store_users(sql, 20)
    create_state, status = state
    await create_state(api, database)
    assert (await read_rollout(api))["status"] == status
    for mutation in mutations:
        argument_sets = (
            [{"withdraw": False}, {"withdraw": True}] if mutation == "cancelRollout" else [{}]
        )
        for withdraws in argument_sets:
            assert await rejection_errors(api, sql, mutation, slug="A", **withdraws) == [
                {
                    "__typename": "RolloutStateConflict",
                    "code": "ROLLOUT_STATE_CONFLICT",
                    "message": f"The rollout's status {status} does not allow this change.",
                    "path": ["slug"],
                    "status": status,
                }
            ]
