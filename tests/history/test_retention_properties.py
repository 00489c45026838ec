"""After old months are dropped, every time since the beginning of history has the same state."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.errors import HistoryDropped
from segmentql.explain.service import explain
from segmentql.exports.members_csv import members_csv
from segmentql.history.member_counts import member_counts
from segmentql.history.records import MemberCountSeries
from segmentql.history.service import segments_as_of
from segmentql.imports import staging
from segmentql.tables import Cause
from tests.back_dating import (
    MICROSECOND,
    delete_segment_at,
)
from tests.conftest import Sql, empty_tables
from tests.history.retention_helpers import (
    create_months,
    drop_before,
    drop_partitions,
    partitions,
    record_and_roll_up,
    start_of,
)
from tests.history.timelines import SLUGS, USERS, Timeline, insert_timeline, timelines

BEGINNING = start_of(1) - timedelta(days=40)
MOMENTS = [
    start_of(month) + offset
    for month in range(1, 6)
    for offset in (-MICROSECOND, timedelta(0), timedelta(days=11, seconds=1))
]
"""Possible times of joins and leaves: at the bounds of months, and within them. The first and the
last ones are in the DEFAULT partition."""


@pytest.fixture
async def months(sql: Sql) -> AsyncIterator[None]:
    """Drop the partitions of the months after the test."""
    yield
    await empty_tables(sql)
    await drop_partitions(sql)


async def state_at(session: ReadSession, at: datetime) -> dict[str, Any]:
    """Return all that the service reads of a time."""
    members = await session.execute(text(staging._MEMBERS_THEN), {"all_ids": [1, 2], "as_of": at})
    explanations = [
        await explain(session, user_id=user_id, slug=slug, as_of=at)
        for user_id in USERS
        for slug in SLUGS
    ]
    return {
        "segments": {
            key[0]: [segment.slug for segment in segments]
            for key, segments in (
                await segments_as_of(session, [(user_id, at) for user_id in USERS])
            ).items()
        },
        "counts": [
            [point.count for point in points]
            for _, points in sorted(
                (
                    await member_counts(
                        session, [MemberCountSeries(id_, at, at, points=1) for id_ in (1, 2)]
                    )
                ).items(),
                key=lambda item: item[0].segment_id,
            )
        ],
        "algebra": sorted(tuple(row) for row in members),
        "explanations": [
            (found.reason, found.since, found.actor, found.last_entry)
            if found and found.is_in
            else None
            for found in explanations
        ],
    }


async def export_at(database: Database, segment_id: int, at: datetime) -> bytes:
    async with database.long_read(seconds=10) as session:
        return b"".join([chunk async for chunk in members_csv(session, segment_id, at).chunks()])


async def states(database: Database, since: datetime) -> dict[datetime, Any]:
    """Return the state at all moments since a time."""
    times = sorted(MOMENTS)
    found: dict[datetime, Any] = {}
    async with database.read() as session:
        for at in times:
            if at >= since:
                found[at] = await state_at(session, at)
        series = [MemberCountSeries(id_, since, times[-1], points=40) for id_ in (1, 2)]
        found[times[-1] + timedelta(days=1)] = [
            [(point.at, point.count) for point in points]
            for _, points in sorted(
                (await member_counts(session, series)).items(), key=lambda item: item[0].segment_id
            )
        ]
    for at in (since, times[-1]):
        found[at]["exports"] = [await export_at(database, id_, at) for id_ in (1, 2)]
    return found


@pytest.mark.slow  # each example creates and drops partitions, and reads about 300 explanations
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=10,
    phases=[Phase.explicit, Phase.generate],  # to shrink a failure would take minutes
)
@given(
    histories=timelines(MOMENTS, max_size=7),
    deletion=st.sampled_from(MOMENTS) | st.none(),
    beginnings=st.sampled_from([(2,), (4,), (2, 3), (1, 4), (3, 5)]),
)
async def test_state_of_every_later_time_survives_the_drop(
    sql: Sql,
    database: Database,
    months: None,
    *,
    histories: list[Timeline],
    deletion: datetime | None,
    beginnings: tuple[int, ...],
) -> None:
    """History begins at one month, and then perhaps at a later one. Segment B may be deleted."""
    await empty_tables(sql)
    await create_months(sql)
    await sql.execute(
        "INSERT INTO segments (slug, created_at, updated_at) SELECT unnest($1::text[]), $2, $2",
        SLUGS,
        BEGINNING,
    )
    for timeline in histories:
        await insert_timeline(
            sql,
            timeline,
            until=deletion if timeline.slug == "B" else None,
            cause=Cause.ROLLOUT if timeline.user_id % 2 else Cause.MANUAL,
        )
    if deletion is not None:
        await delete_segment_at(sql, "B", deletion)
    await record_and_roll_up(database)
    active = "SELECT id, joined_at, cause, actor FROM memberships ORDER BY id"
    memberships = await sql.fetch(active)
    for month in beginnings:
        earliest = start_of(month)
        before = await states(database, earliest)
        await drop_before(database, earliest)
        assert await states(database, earliest) == before
        await assert_earlier_times_are_unknown(database, earliest)
    assert await sql.fetch(active) == memberships
    await assert_only_needed_joins_are_kept(sql, start_of(beginnings[-1]))
    for first, second in pairwise(sorted(await partitions(sql))):
        assert first[-7:] != second[-7:]  # no month has two partitions


async def assert_earlier_times_are_unknown(database: Database, earliest: datetime) -> None:
    at = earliest - MICROSECOND
    async with database.read() as session:
        assert await segments_as_of(session, [(1, at)]) == {}
        assert await member_counts(session, [MemberCountSeries(1, at, earliest, points=2)]) == {}
        with pytest.raises(HistoryDropped):
            await explain(session, user_id=1, slug="A", as_of=at)


async def assert_only_needed_joins_are_kept(sql: Sql, earliest: datetime) -> None:
    """Check that each earlier entry is the join of a membership that was active at `earliest`."""
    unneeded = await sql.fetch(
        """
        SELECT * FROM history h WHERE at < $1 AND (operation = 'LEFT' OR NOT (
            EXISTS (SELECT FROM memberships m WHERE m.id = h.membership_id) OR EXISTS (
                SELECT FROM history l WHERE l.membership_id = h.membership_id
                    AND l.operation = 'LEFT' AND l.at >= $1)))
        """,
        earliest,
    )
    assert unneeded == []
