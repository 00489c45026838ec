"""SQL of the number of members of a segment at points in the past.

A membership has one join, and one end if it has ended. So the number of members at a point is the
number of joins up to the point, minus the number of ends up to it. An end is one of these:

- a leave in history;
- the `expires_at` of an expired membership whose leave is not recorded yet;
- the deletion of the segment. It ends all memberships, so a deleted segment has no member from its
  `deleted_at` on, and the leaves that workers record for it need not be read.

The active memberships are not counted: they may be millions of rows, and an end that is still to
come does not matter.

History may be millions of rows as well. Workers roll it up: `member_count_hours` has the number of
joins and leaves of each segment and hour. `member_count_rollup` has the position in history up to
which they are included. The statement reads the sums of the whole hours before a point, the later
history (the tail), and the entries of the point's own hour. It reads them all in one snapshot, so
an entry is either in a sum or in the tail.

The sums remain if old partitions of history are dropped. So the counts remain exact at full hours,
and after the dropped partitions.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from sqlalchemy import text

from segmentql.adapters.database import ReadSession, WriteSession
from segmentql.history.records import MemberCountRecord, MemberCountSeries

ROLL_UP_INTERVAL_SECONDS: Final = 10
"""The interval of the roll-up. It bounds the tail, which every count reads."""

CHUNK_ROWS: Final = 50_000
"""The maximum number of entries that one transaction rolls up, about 0.2 s."""

_HOUR: Final = "date_bin('1 hour', {0}, '2000-01-01 00:00:00Z')"
"""The start of the hour, in UTC."""

# `points` are the points of a series before the deletion of its segment, in ascending order. The
# number of points before a time is the index of the first point that is not before it.
_POINTS_BEFORE: Final = "width_bucket({0} - interval '1 microsecond', series.points)"

# Each branch of UNION ALL returns changes of the number of members and the index of the first point
# that they affect. A change also affects all later points.
#
# - `sums` and `tail`: their changes affect the points after their hour.
# - `entries`: the changes between a point, or the start of its hour, and the next point. They are
#   withdrawn from the points after the hour, because these have them from `sums` or `tail`.
# - `expired`: memberships whose leave is not recorded yet.
#
# The planner does not know the rolled-up position, so it would prefer the index on (segment_id, at,
# user_id) for the tail and read the whole history of a segment. `segment_id + 0` rules this index
# out, and the planner uses the one on the position. It knows now(), and so that few memberships
# have an `expires_at` before it; no point is after now().
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
), tail AS MATERIALIZED (
    SELECT h.segment_id, {_HOUR.format("h.at")} AS hour,
        sum(CASE h.operation WHEN 'JOINED' THEN 1 ELSE -1 END) AS members
    FROM history h
    WHERE h.position > (SELECT position FROM member_count_rollup)
        AND h.segment_id + 0 = ANY(CAST(:segment_ids AS bigint[]))
    GROUP BY h.segment_id, hour
)
SELECT series.number, series.deleted_at, change.first_point, change.members
FROM series LEFT JOIN LATERAL (
    SELECT all_changes.first_point, sum(all_changes.members) AS members
    FROM (
        SELECT {_POINTS_BEFORE.format("sums.hour + interval '1 hour'")} AS first_point,
            sums.joins - sums.leaves AS members
        FROM member_count_hours sums
        WHERE sums.segment_id = series.segment_id AND sums.hour < series.last_point
        UNION ALL
        SELECT {_POINTS_BEFORE.format("tail.hour + interval '1 hour'")}, tail.members
        FROM tail
        WHERE tail.segment_id = series.segment_id AND tail.hour < series.last_point
        UNION ALL
        SELECT affected.first_point, affected.sign * entries.members
        FROM (
            SELECT index, at, {_HOUR.format("at")} AS hour,
                lag(at) OVER (ORDER BY index) AS previous_at
            FROM unnest(series.points) WITH ORDINALITY AS points (at, index)
        ) AS point
        CROSS JOIN LATERAL (
            SELECT sum(CASE h.operation WHEN 'JOINED' THEN 1 ELSE -1 END) AS members
            FROM history h
            WHERE h.segment_id = series.segment_id AND h.at <= point.at
                AND h.at >= greatest(point.hour, point.previous_at + interval '1 microsecond')
        ) AS entries
        CROSS JOIN LATERAL (VALUES
            (CAST(point.index - 1 AS int), 1),
            ({_POINTS_BEFORE.format("point.hour + interval '1 hour'")}, -1)
        ) AS affected (first_point, sign)
        WHERE entries.members <> 0
        UNION ALL
        SELECT {_POINTS_BEFORE.format("expired.expires_at")}, -1
        FROM memberships expired
        WHERE expired.segment_id = series.segment_id AND expired.expires_at <= series.last_point
            AND expired.expires_at <= now()
    ) AS all_changes
    GROUP BY all_changes.first_point
) AS change ON true
WHERE NOT series.in_the_future
""")

_HAS_NEW_HISTORY = text("""
SELECT EXISTS (
    SELECT FROM history WHERE position > (SELECT position FROM member_count_rollup)
)
""")

# One worker at a time rolls up, because another would only wait.
_LOCK_ROLLUP = text("SELECT position FROM member_count_rollup FOR NO KEY UPDATE SKIP LOCKED")

_ROLL_UP = text(f"""
WITH chunk AS MATERIALIZED (
    SELECT segment_id, {_HOUR.format("at")} AS hour, operation, position FROM history
    WHERE position > :rolled_up AND position <= :settled
    ORDER BY position LIMIT :rows
), summed AS (
    INSERT INTO member_count_hours AS sums (segment_id, hour, joins, leaves)
    SELECT segment_id, hour, count(*) FILTER (WHERE operation = 'JOINED'),
        count(*) FILTER (WHERE operation = 'LEFT')
    FROM chunk GROUP BY segment_id, hour ORDER BY segment_id, hour
    ON CONFLICT (segment_id, hour) DO UPDATE SET
        joins = sums.joins + excluded.joins, leaves = sums.leaves + excluded.leaves
), chunk_end AS (
    SELECT CASE count(*) WHEN :rows THEN max(position) ELSE :settled END AS position
    FROM chunk
)
UPDATE member_count_rollup SET position = chunk_end.position FROM chunk_end
RETURNING chunk_end.position
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
        # The last item has the changes that affect no point.
        of_series = changes.setdefault(row.number, [0] * (len(times[row.number]) + 1))
        deletions[row.number] = row.deleted_at
        if row.first_point is not None:
            of_series[row.first_point] += int(row.members)
    return {
        requested[number]: [
            MemberCountRecord(at, 0 if deletions[number] and at >= deletions[number] else count)
            for at, count in zip(times[number], accumulate(of_series[:-1]), strict=True)
        ]
        for number, of_series in changes.items()
    }


async def has_new_history(session: ReadSession) -> bool:
    """Return whether history has entries that are not rolled up."""
    return bool((await session.execute(_HAS_NEW_HISTORY)).scalar_one())


async def roll_up(session: WriteSession, settled: int, *, rows: int = CHUNK_ROWS) -> bool:
    """Add up to `rows` entries of history to the sums of their hours.

    Args:
        session: The session.
        settled: A settled position (see `settled.py`). Entries after it are not added.
        rows: The maximum number of entries.

    Returns:
        Whether there may be more entries up to `settled`.
    """
    rolled_up = (await session.execute(_LOCK_ROLLUP)).scalar_one_or_none()
    if rolled_up is None or rolled_up >= settled:
        return False
    values = {"rolled_up": rolled_up, "settled": settled, "rows": rows}
    position: int = (await session.execute(_ROLL_UP, values)).scalar_one()
    return position < settled
