"""Counts agree with `segments(asOf:)` of all users, for random joins and leaves."""

from datetime import datetime, timedelta
from functools import partial

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmentql.adapters.database import Database
from segmentql.history.member_counts import member_counts, roll_up
from segmentql.history.records import MemberCountSeries
from segmentql.history.service import segments_as_of
from segmentql.memberships import expiry
from tests.back_dating import HOUR, MICROSECOND, NOON, delete_segment_at
from tests.conftest import Sql, empty_tables
from tests.history.timelines import SLUGS, USERS, Timeline, insert_timeline, timelines

MOMENTS = [
    NOON + timedelta(seconds=seconds)
    for seconds in (
        *(-1800, 0, 0.4, 1, 1.5, 1200, 1200.5, 2400, 3599.999999),
        *(3600, 3600.3, 3601, 5400, 7200, 10800, 14400),
    )
]
"""Possible times of joins and leaves: several in an hour, several in a second, and full hours."""


async def assert_counts_match_the_users(database: Database, points: int) -> None:
    """Compare counts at and before all moments, and between them, with the users' segments."""
    moments = {at - offset for at in MOMENTS for offset in (timedelta(0), MICROSECOND)}
    requested = [
        MemberCountSeries(segment_id, at, at, points=1) for segment_id in (1, 2) for at in moments
    ]
    requested += [
        MemberCountSeries(segment_id, since, until, points=points)
        for segment_id in (1, 2)
        for since, until in (
            (MOMENTS[0] - HOUR, MOMENTS[-1] + HOUR),
            (MOMENTS[2], MOMENTS[-2]),
            (MOMENTS[1], MOMENTS[4]),
        )
    ]
    async with database.read() as session:
        found = await member_counts(session, requested)
        assert found.keys() == set(requested)
        moments |= {point.at for series_points in found.values() for point in series_points}
        users = await segments_as_of(session, [(user, at) for user in USERS for at in moments])
    expected: dict[tuple[int, datetime], int] = {}
    for (_, at), segments in users.items():
        for segment in segments:
            expected[segment.segment_id, at] = expected.get((segment.segment_id, at), 0) + 1
    for key, series_points in found.items():
        assert [point.at for point in series_points] == key.times
        for point in series_points:
            assert point.count == expected.get((key.segment_id, point.at), 0), (key, point.at)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    histories=timelines(MOMENTS, max_size=6),
    deletion=st.sampled_from(MOMENTS) | st.none(),
    points=st.integers(1, 12),
    rolled_up=st.integers(0, 40),
    max_entries_of_hour=st.integers(0, 4),
)
async def test_counts_equal_the_users_whose_segments_as_of_have_the_segment(
    sql: Sql,
    database: Database,
    *,
    histories: list[Timeline],
    deletion: datetime | None,
    points: int,
    rolled_up: int,
    max_entries_of_hour: int,
) -> None:
    """Segment B is deleted at `deletion`. Its leaves are not recorded at first.

    The first `rolled_up` entries of history are rolled up, and later all of them.
    """
    await empty_tables(sql)
    await sql.execute(
        "INSERT INTO segments (slug, created_at, updated_at) SELECT unnest($1::text[]), $2, $2",
        SLUGS,
        NOON,
    )
    for timeline in histories:
        await insert_timeline(sql, timeline, until=deletion if timeline.slug == "B" else None)
    if deletion is not None:
        await delete_segment_at(sql, "B", deletion)
    settled = await sql.fetchval(
        "SELECT coalesce(least(min(position) + $1 - 1, max(position)), 0) FROM history", rolled_up
    )
    roll_up_settled = partial(roll_up, max_entries_of_hour=max_entries_of_hour)
    await database.transaction(partial(roll_up_settled, settled=settled))
    await assert_counts_match_the_users(database, points)
    await database.transaction(partial(expiry.expire_due, rows=1))
    await database.transaction(partial(expiry.record_segment_leaves, segment_id=2, rows=1))
    await assert_counts_match_the_users(database, points)
    settled = await sql.fetchval("SELECT coalesce(max(position), 0) FROM history")
    await database.transaction(partial(roll_up_settled, settled=settled))
    await assert_counts_match_the_users(database, points)
