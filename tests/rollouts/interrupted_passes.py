"""A pass that has done one of its two chunks, and the members that it must have at its end."""

from collections.abc import Iterable

from segmentql.adapters.database import Database
from segmentql.rollouts.chunks import CHUNK_USERS
from segmentql.rollouts.passes import StepOutcome
from tests.conftest import Sql
from tests.rollouts.helpers import (
    begin_pass_with_sample,
    expected_sample,
    members,
    set_plan,
    store_users,
    work_chunk,
)
from tests.timeline import history_inconsistencies, make_segment

BEYOND = 100
"""Number of users after the first chunk."""


async def first_chunk(sql: Sql, database: Database, percent: int = 100) -> tuple[int, range]:
    """Create a segment whose pass has done one of two chunks; return its id and the users."""
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, CHUNK_USERS + BEYOND)
    await set_plan(database, "A", percent)
    await begin_pass_with_sample(database, segment_id)
    assert await work_chunk(database, segment_id) is StepOutcome.MORE_WORK
    return segment_id, users


async def assert_exact(sql: Sql, segment_id: int, users: Iterable[int], percent: int) -> None:
    in_now = await members(sql, segment_id)
    assert in_now.keys() == expected_sample(segment_id, users, percent)
    assert set(in_now.values()) <= {"ROLLOUT"}
    assert await history_inconsistencies(sql) == {}
