"""SQL of the number of members of a segment at points in the past.

A membership has one join, and one end if it has ended. So the number of members at a point is the
number of joins up to the point, minus the number of ends up to it. An end is one of these:

- a leave in history;
- the `expires_at` of an expired membership whose leave is not recorded yet;
- the deletion of the segment. It ends all memberships, so a deleted segment has no member from its
  `deleted_at` on, and the leaves that workers record for it need not be read.

The active memberships are not counted: they may be millions of rows, and an end that is still to
come does not matter.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from sqlalchemy import text

from segmentql.adapters.database import ReadSession
from segmentql.history.records import MemberCountRecord, MemberCountSeries

# `points` are the points of a series before the deletion of its segment, in ascending order.
# `points_before` is the number of points before an event, which affects all points after these.
_POINTS_BEFORE: Final = "width_bucket({0} - interval '1 microsecond', series.points)"

# now() bounds the expired memberships although no point is after now(): the planner knows its
# value, and so that few memberships have an `expires_at` before it.
_MEMBER_COUNTS = text(f"""
WITH series AS MATERIALIZED (
    SELECT p.number, p.segment_id, s.deleted_at, max(p.at) > now() AS in_the_future,
        array_agg(p.at ORDER BY p.at) FILTER (WHERE s.deleted_at IS NULL OR p.at < s.deleted_at)
            AS points,
        max(p.at) FILTER (WHERE s.deleted_at IS NULL OR p.at < s.deleted_at) AS last_point
    FROM unnest(
        CAST(:numbers AS int[]), CAST(:segment_ids AS bigint[]), CAST(:ats AS timestamptz[])
    ) AS p (number, segment_id, at)
    JOIN segments s ON s.id = p.segment_id
    GROUP BY p.number, p.segment_id, s.id
)
SELECT series.number, series.deleted_at, change.points_before, change.members
FROM series LEFT JOIN LATERAL (
    SELECT event.points_before, sum(event.members) AS members
    FROM (
        SELECT {_POINTS_BEFORE.format("h.at")} AS points_before,
            CASE h.operation WHEN 'JOINED' THEN 1 ELSE -1 END AS members
        FROM history h
        WHERE h.segment_id = series.segment_id AND h.at <= series.last_point
        UNION ALL
        SELECT {_POINTS_BEFORE.format("m.expires_at")}, -1
        FROM memberships m
        WHERE m.segment_id = series.segment_id AND m.expires_at <= series.last_point
            AND m.expires_at <= now()
    ) AS event
    GROUP BY event.points_before
) AS change ON true
WHERE NOT series.in_the_future
""")


async def member_counts(
    session: ReadSession, requested: Sequence[MemberCountSeries]
) -> dict[MemberCountSeries, list[MemberCountRecord]]:
    """Count the members of segments at points in the past.

    The counts are exact, and one statement reads them all, so they do not contradict each other.

    Args:
        session: The session.
        requested: The series. Series that end in the future are absent from the result.
    """
    times = [series.times for series in requested]
    points = [
        (number, series.segment_id, at)
        for number, series in enumerate(requested)
        for at in times[number]
    ]
    numbers, segment_ids, ats = zip(*points, strict=True)
    values = {"numbers": list(numbers), "segment_ids": list(segment_ids), "ats": list(ats)}
    changes: dict[int, list[int]] = {}
    deletions = {}
    for row in await session.execute(_MEMBER_COUNTS, values):
        of_series = changes.setdefault(row.number, [0] * len(times[row.number]))
        deletions[row.number] = row.deleted_at
        if row.points_before is not None:
            of_series[row.points_before] += int(row.members)
    return {
        requested[number]: [
            MemberCountRecord(at, 0 if deletions[number] and at >= deletions[number] else count)
            for at, count in zip(times[number], accumulate(of_series), strict=True)
        ]
        for number, of_series in changes.items()
    }
