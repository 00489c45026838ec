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
joins and leaves of each segment and hour, and `member_count_seconds` has those of each second of
the hours that have many. `member_count_rollup` has the position in history up to which they are
included. The statement reads the sums of the whole hours before a point, the later history (the
tail), and the point's own hour: its entries, or, if it has many, the sums of its whole seconds and
the entries of the point's second. It reads them all in one snapshot, so an entry is either in a sum
or in the tail.

If old history is dropped, one sum for each segment remains of it. So the counts remain exact from
the beginning of history on.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from sqlalchemy import text

from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.history.records import MemberCountRecord, MemberCountSeries
from segmentql.history.retention import EARLIEST_AT

ROLL_UP_INTERVAL_SECONDS: Final = 10
"""The interval of the roll-up. It bounds the tail, which every count reads."""

CHUNK_ROWS: Final = 50_000
"""The maximum number of entries that one transaction rolls up, which takes about 0.1 s."""

MAX_ENTRIES_OF_HOUR: Final = 5000
"""The number of a segment's entries in an hour above which the hour also has sums of its seconds.

A rollout can write millions of entries in an hour, and a point may divide the hour. Most hours have
few entries, and the sums of their seconds would be as many rows as history has."""

_HOUR: Final = "date_bin('1 hour', {0}, '2000-01-01 00:00:00Z')"
"""The start of the hour, in UTC."""

_SECOND: Final = "date_bin('1 second', {0}, '2000-01-01 00:00:00Z')"
_SIGN: Final = "CASE h.operation WHEN 'JOINED' THEN 1 ELSE -1 END"

# `points` are the points of a series before the deletion of its segment, in ascending order. The
# number of points before a time is the index of the first point that is not before it.
_POINTS_BEFORE: Final = "width_bucket({0} - interval '1 microsecond', series.points)"

# Each branch of UNION ALL returns changes of the number of members and the index of the first point
# that they affect. A change also affects all later points.
#
# - `sums` and `tail`: their changes affect the points after their hour.
# - `expired`: memberships whose leave is not recorded yet.
# - `point`: the changes in the point's own hour since the previous point, or since the start of the
#   hour. They consist of whole seconds, if the hour has their sums, and of entries. The changes are
#   withdrawn from the points after the hour, which have them from `sums` or `tail`, and the entries
#   of a divided second from the points after the second.
#
# The planner does not know the rolled-up position, so it would prefer the index on (segment_id, at,
# user_id) for the tail and read the whole history of a segment. `segment_id + 0` rules this index
# out, and the planner uses the one on the position. It knows now(), and so that few memberships
# have an `expires_at` before it; no point is after now().
_MEMBER_COUNTS = text(f"""
WITH series AS MATERIALIZED (
    SELECT p.number, p.segment_id, s.deleted_at,
        max(p.at) > now() OR min(p.at) < {EARLIEST_AT} AS is_unknown,
        array_agg(p.at ORDER BY p.at) FILTER (WHERE s.deleted_at IS NULL OR p.at < s.deleted_at)
            AS points,
        max(p.at) FILTER (WHERE s.deleted_at IS NULL OR p.at < s.deleted_at) AS last_point
    FROM unnest(
        CAST(:numbers AS int[]), CAST(:segment_ids AS bigint[]), CAST(:ats AS timestamptz[])
    ) AS p (number, segment_id, at)
    JOIN segments s ON s.id = p.segment_id
    GROUP BY p.number, p.segment_id, s.id
), tail AS MATERIALIZED (
    SELECT h.segment_id, {_HOUR.format("h.at")} AS hour, {_SECOND.format("h.at")} AS second,
        sum({_SIGN}) AS members
    FROM history h
    WHERE h.position > (SELECT position FROM member_count_rollup)
        AND h.segment_id + 0 = ANY(CAST(:segment_ids AS bigint[]))
    GROUP BY h.segment_id, hour, second
)
SELECT series.number, series.deleted_at, change.first_point, change.members
FROM series LEFT JOIN LATERAL (
    SELECT changes.first_point, sum(changes.members) AS members
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
        SELECT {_POINTS_BEFORE.format("expired.expires_at")}, -1
        FROM memberships expired
        WHERE expired.segment_id = series.segment_id AND expired.expires_at <= series.last_point
            AND expired.expires_at <= now()
        UNION ALL
        SELECT affected.first_point, affected.members
        FROM (
            SELECT p.index, p.at, p.hour, p.second, p.previous_at, sums.has_seconds,
                greatest(p.hour, {_SECOND.format("p.previous_at")}) AS first_second,
                CASE WHEN sums.has_seconds THEN p.second ELSE p.hour END AS first_entry
            FROM (
                SELECT index, at, {_HOUR.format("at")} AS hour, {_SECOND.format("at")} AS second,
                    lag(at) OVER (ORDER BY index) AS previous_at
                FROM unnest(series.points) WITH ORDINALITY AS p (at, index)
            ) AS p
            LEFT JOIN member_count_hours sums
                ON sums.segment_id = series.segment_id AND sums.hour = p.hour
        ) AS point
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(seconds.members), 0) AS members
            FROM (
                SELECT sums.joins - sums.leaves AS members FROM member_count_seconds sums
                WHERE point.has_seconds AND sums.segment_id = series.segment_id
                    AND sums.second >= point.first_second AND sums.second < point.second
                UNION ALL
                SELECT tail.members FROM tail
                WHERE point.has_seconds AND tail.segment_id = series.segment_id
                    AND tail.second >= point.first_second AND tail.second < point.second
            ) AS seconds
        ) AS whole_seconds
        CROSS JOIN LATERAL (
            SELECT coalesce(sum({_SIGN}), 0) AS members
            FROM history h
            WHERE h.segment_id = series.segment_id AND h.at <= point.at
                AND h.at >= greatest(
                    point.first_entry, point.previous_at + interval '1 microsecond')
        ) AS entries
        CROSS JOIN LATERAL (VALUES
            (CAST(point.index - 1 AS int), whole_seconds.members + entries.members),
            ({_POINTS_BEFORE.format("point.hour + interval '1 hour'")}, -whole_seconds.members),
            (CASE WHEN point.has_seconds
                THEN {_POINTS_BEFORE.format("point.second + interval '1 second'")}
                ELSE {_POINTS_BEFORE.format("point.hour + interval '1 hour'")} END,
                -entries.members)
        ) AS affected (first_point, members)
    ) AS changes
    GROUP BY changes.first_point
) AS change ON true
WHERE NOT series.is_unknown
""")

_HAS_NEW_HISTORY = text("""
SELECT EXISTS (
    SELECT FROM history WHERE position > (SELECT position FROM member_count_rollup)
)
""")

# One worker at a time rolls up, because another would only wait.
_LOCK_ROLLUP = text("SELECT position FROM member_count_rollup FOR NO KEY UPDATE SKIP LOCKED")

# An hour gets the sums of its seconds from history when it exceeds the limit, and from each chunk
# after that. The new value of `has_seconds` counts the chunk.
_ROLL_UP = text(f"""
WITH chunk AS MATERIALIZED (
    SELECT h.segment_id, {_HOUR.format("h.at")} AS hour, {_SECOND.format("h.at")} AS second,
        h.operation, h.position
    FROM history h
    WHERE h.position > :rolled_up AND h.position <= :settled
    ORDER BY h.position LIMIT :rows
), chunk_end AS (
    SELECT CASE count(*) WHEN :rows THEN max(position) ELSE :settled END AS position
    FROM chunk
), summed AS (
    INSERT INTO member_count_hours AS sums (segment_id, hour, joins, leaves, has_seconds)
    SELECT segment_id, hour, count(*) FILTER (WHERE operation = 'JOINED'),
        count(*) FILTER (WHERE operation = 'LEFT'), count(*) > :max_entries_of_hour
    FROM chunk GROUP BY segment_id, hour ORDER BY segment_id, hour
    ON CONFLICT (segment_id, hour) DO UPDATE SET
        joins = sums.joins + excluded.joins, leaves = sums.leaves + excluded.leaves,
        has_seconds = sums.has_seconds OR sums.joins + sums.leaves + excluded.joins
            + excluded.leaves > :max_entries_of_hour
    RETURNING sums.segment_id, sums.hour, coalesce(old.has_seconds, false) AS had_seconds,
        new.has_seconds
), summed_seconds AS (
    INSERT INTO member_count_seconds AS sums (segment_id, second, joins, leaves)
    SELECT segment_id, second, count(*) FILTER (WHERE operation = 'JOINED'),
        count(*) FILTER (WHERE operation = 'LEFT')
    FROM (
        SELECT segment_id, second, operation FROM chunk
        JOIN summed USING (segment_id, hour) WHERE had_seconds
        UNION ALL
        SELECT segment_id, second, operation FROM summed
        CROSS JOIN LATERAL (
            SELECT {_SECOND.format("h.at")} AS second, h.operation FROM history h
            WHERE h.segment_id = summed.segment_id AND h.at >= summed.hour
                AND h.at < summed.hour + interval '1 hour'
                AND h.position <= (SELECT position FROM chunk_end)
            OFFSET 0  -- keeps the planner from a join with the whole history
        ) AS entry
        WHERE has_seconds AND NOT had_seconds
    ) AS entry
    GROUP BY segment_id, second ORDER BY segment_id, second
    ON CONFLICT (segment_id, second) DO UPDATE SET
        joins = sums.joins + excluded.joins, leaves = sums.leaves + excluded.leaves
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
        requested: The series. Series that end in the future, or begin before the beginning of
            history, are absent from the result.
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


async def roll_up(
    session: WriteSession,
    settled: int,
    *,
    rows: int = CHUNK_ROWS,
    max_entries_of_hour: int = MAX_ENTRIES_OF_HOUR,
) -> bool:
    """Add up to `rows` entries of history to the sums of their hours and seconds.

    Args:
        session: The session.
        settled: A settled position (see `settled.py`). Entries after it are not added.
        rows: The maximum number of entries.
        max_entries_of_hour: The number of entries above which an hour gets sums of its seconds.

    Returns:
        Whether there may be more entries up to `settled`.
    """
    rolled_up = (await session.execute(_LOCK_ROLLUP)).scalar_one_or_none()
    if rolled_up is None or rolled_up >= settled:
        return False
    values = {
        "rolled_up": rolled_up,
        "settled": settled,
        "rows": rows,
        "max_entries_of_hour": max_entries_of_hour,
    }
    position: int = (await session.execute(_ROLL_UP, values)).scalar_one()
    return position < settled
