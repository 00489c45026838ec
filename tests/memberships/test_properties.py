"""The database agrees with a small model after any sequence of operations.

Time passes by moving every row into the past, as if the clock had been put forward.
"""

import math
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from hypothesis import HealthCheck, example, given, settings

from segmentql.adapters.database import Database
from segmentql.history.records import HistoryPage
from segmentql.history.service import history_pages, segments_as_of
from segmentql.memberships import reads
from segmentql.memberships.records import OnExisting
from segmentql.validators import MAX_PAGE_ROWS
from tests.conftest import Sql, empty_tables
from tests.memberships.operations import (
    Change,
    Create,
    DeleteSegment,
    DeleteUser,
    RecordExpired,
    RecordSegmentLeaves,
    Step,
    SystemUnderTest,
    Wait,
    steps,
)
from tests.memberships.reference_model import SLUGS, STEP_SECONDS, USERS, Model, Moment
from tests.timeline import database_now, history_inconsistencies


def seconds_left_in_steps(end: datetime | None, now: datetime) -> int | None:
    """Return the seconds until an end, rounded up to a whole step."""
    if end is None:
        return None
    return math.ceil((end - now).total_seconds() / STEP_SECONDS) * STEP_SECONDS


async def assert_same_now(model: Model, system: SystemUnderTest) -> None:
    """Assert that every read of the current state agrees with the model."""
    now = await database_now(system.sql)
    async with system.database.read() as session:
        found = await reads.memberships_by_user(session, USERS)
        counts = await reads.member_counts(session, list(model.slugs.values()))
        excluded = await reads.excluded_pairs(
            session, [(user_id, slug) for user_id in USERS for slug in SLUGS]
        )
    for user_id in USERS:
        rows = {m.segment.segment_id: m.expires_at for m in found.get(user_id, [])}
        assert {key: seconds_left_in_steps(end, now) for key, end in rows.items()} == {
            membership.segment_id: None
            if membership.end is None
            else membership.end[0] - model.now[0]
            for membership in model.active(user_id=user_id)
        }
    assert counts == {
        segment_id: len(model.active(segment_id=segment_id)) for segment_id in model.slugs.values()
    }
    assert excluded == {
        (user_id, slug)
        for user_id, segment_id in model.excluded
        for slug, number in model.slugs.items()
        if number == segment_id
    }


async def assert_same_past_of_all(model: Model, system: SystemUnderTest) -> None:
    async with system.database.read() as session:
        pages = await history_pages(
            session, [HistoryPage(MAX_PAGE_ROWS, user_id=user_id) for user_id in USERS]
        )
    assert {page.user_id for page in pages} == {
        user_id for user_id in USERS if model.entries(user_id)
    }
    for page, rows in pages.items():
        assert page.user_id is not None
        await assert_same_past(model, system, page.user_id, rows)


async def assert_same_past(
    model: Model, system: SystemUnderTest, user_id: int, rows: list[Any]
) -> None:
    """Assert that history has the model's entries in order, and that `asOf` agrees."""
    recorded_entries: list[tuple[datetime, set[tuple[int, str, str]]]] = [
        (at, {(row.segment.segment_id, str(row.operation), str(row.cause)) for row in together})
        for at, together in groupby(reversed(rows), key=lambda row: row.at)
    ]
    expected = model.entries(user_id)
    assert [entries for _, entries in recorded_entries] == [entries for _, entries in expected]

    def segments_at(moment: Moment) -> set[int]:
        return {
            s.segment_id
            for s in model.memberships
            if s.user_id == user_id and s.is_active_at(moment)
        }

    requested: dict[tuple[int, datetime], set[int]] = {}
    before: set[int] = set()
    for (at, _), (moment, _) in zip(recorded_entries, expected, strict=True):
        after = segments_at(moment)
        requested[user_id, at - timedelta(microseconds=1)] = before
        requested[user_id, at] = after
        requested[user_id, at + timedelta(microseconds=1)] = after
        before = after
    async with system.database.read() as session:
        found = await segments_as_of(session, list(requested))
    assert {key: {row.segment_id for row in found[key]} for key in requested} == requested


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps())
@example(
    # This example adds an expired member before its leave is recorded, in a recreated segment.
    steps=[
        Create("A"),
        Change(1, ("A",), (), 10),
        DeleteSegment("A"),
        Create("A"),
        Change(1, ("A",), (), 10),
        Wait(10),
        Change(1, ("A",), (), 20, OnExisting.KEEP),
        Wait(30),
        DeleteUser(1),
        Change(1, (), ("A",)),
        RecordSegmentLeaves(),
        RecordExpired(),
    ]
)
async def test_database_agrees_with_the_model(
    sql: Sql, database: Database, steps: list[Step]
) -> None:
    await empty_tables(sql)
    model, system = Model(), SystemUnderTest(database, sql)
    for number, step in enumerate(steps):
        model.now = (model.now[0], number)
        await step.run(model, system)
        await assert_same_now(model, system)
    await assert_same_past_of_all(model, system)
    assert await history_inconsistencies(sql) == {}
    await system.record_segment_leaves()
    await system.record_expired()
    await assert_same_now(model, system)
    await assert_same_past_of_all(model, system)
    assert await history_inconsistencies(sql) == {}
    assert await sql.fetchval("SELECT count(*) FROM memberships") == len(model.active())
