"""Reads of rollouts.

The table stores decisions and the progress of the current pass. The status, the percent in force
and the status of each stage are computed on read from the schedule and PostgreSQL's clock. So they
are correct even if no worker is running.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, text

from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.memberships.reads import ACTIVE
from segmentql.rollouts.records import RolloutCounts, RolloutRecord, RolloutStatus
from segmentql.tables import PassPhase, RolloutState

# A FAILED rollout with `paused_at` failed while it withdrew its members. `max_percent` is 0 after a
# withdrawal, because no member of the rollout is left.
_WITHDRAWN: Final = """
(r.state = 'WITHDRAWING' OR r.state = 'FAILED' AND r.paused_at IS NOT NULL
    OR r.state = 'CANCELLED' AND r.max_percent = 0)
"""

_EXPIRED: Final = "coalesce(r.expires_at <= statement_timestamp(), false)"

WORK_DUE: Final = f"""
(s.deleted_at IS NULL AND (r.state = 'WITHDRAWING' OR r.state = 'ACTIVE' AND (
    r.phase <> 'DONE' OR schedule.current > r.stage AND NOT {_EXPIRED})))
"""
"""SQL condition: a worker has something to do for the rollout."""

# While a rollout is paused, and after it is cancelled, its schedule is frozen at `paused_at`.
FROM_ROLLOUTS: Final = """
FROM rollouts r
JOIN segments s ON s.id = r.segment_id
CROSS JOIN LATERAL (
    SELECT
        CAST(count(*) FILTER (WHERE starts_at <= coalesce(
            least(r.paused_at, s.deleted_at), statement_timestamp())) AS integer) AS current,
        array_agg(percent ORDER BY number) AS percents,
        array_agg(starts_at ORDER BY number) AS start_times,
        array_agg(done_at ORDER BY number) AS done_times
    FROM rollout_stages WHERE rollout_stages.segment_id = r.segment_id
) AS schedule
"""

ROLLOUT_COLUMNS: Final = f"""
r.segment_id, s.slug, r.state, r.enroll_new_users, r.expires_at, r.actor, r.api_key_id,
r.started_at, r.finished_at, r.failure, r.max_percent, r.pass_number, r.phase, r.stage,
r.percent AS pass_percent, r.removes_members, r.last_insert_seq, r.bound_hash, r.bound_user_id,
r.cursor_user_id, schedule.current, schedule.percents, schedule.start_times, schedule.done_times,
statement_timestamp() AS read_at, {_EXPIRED} AS expired,
{WORK_DUE} AS work_due,
CASE WHEN s.deleted_at IS NOT NULL THEN 'CANCELLED'
     WHEN r.state <> 'ACTIVE' THEN CAST(r.state AS text)
     WHEN {WORK_DUE} THEN 'RUNNING'
     WHEN {_EXPIRED} OR schedule.current = cardinality(schedule.percents) THEN 'COMPLETED'
     WHEN schedule.current = 0 THEN 'SCHEDULED'
     ELSE 'WAITING' END AS status,
CASE WHEN schedule.current = 0 OR s.deleted_at IS NOT NULL OR {_WITHDRAWN} THEN 0
     ELSE schedule.percents[schedule.current] END AS percent,
{_WITHDRAWN} AS withdrawn,
CASE WHEN r.stage = schedule.current AND r.phase IN ('WORKING', 'DONE')
     THEN r.users_total ELSE 0 END AS users_total,
CASE WHEN r.stage = schedule.current AND r.phase IN ('WORKING', 'DONE')
     THEN r.users_seen ELSE 0 END AS users_seen,
CASE WHEN r.stage <> schedule.current OR r.phase NOT IN ('WORKING', 'DONE') THEN 0
     WHEN r.phase = 'DONE' AND r.stage > 0 THEN 1
     ELSE coalesce(r.users_seen / nullif(CAST(r.users_total AS double precision), 0), 0)
     END AS progress
"""
"""The columns of `rollout_record`, for statements with `FROM_ROLLOUTS`."""

_READ_ROLLOUTS = text(f"""
SELECT {ROLLOUT_COLUMNS} {FROM_ROLLOUTS} WHERE r.segment_id = ANY(:segment_ids)
""")

_COUNT_BY_STATUS = text(f"""
SELECT status, count(*) AS rollout_count
FROM (SELECT {ROLLOUT_COLUMNS} {FROM_ROLLOUTS} WHERE s.deleted_at IS NULL) AS rollouts
GROUP BY status
""")

_READ_PASS_PROGRESS = text(f"""
SELECT slug, progress
FROM (SELECT {ROLLOUT_COLUMNS} {FROM_ROLLOUTS} WHERE s.deleted_at IS NULL) AS rollouts
WHERE status IN ('RUNNING', 'WITHDRAWING')
ORDER BY started_at DESC NULLS LAST, segment_id DESC LIMIT :limit
""")

_COUNT_USERS = text(f"""
SELECT requested.segment_id, (
    SELECT count(*) FROM memberships m JOIN segments s ON s.id = m.segment_id
    WHERE m.segment_id = requested.segment_id AND m.cause = 'ROLLOUT' AND {ACTIVE}
) AS enrolled, (
    SELECT count(*) FROM exclusions e JOIN segments s ON s.id = e.segment_id
    WHERE e.segment_id = requested.segment_id AND s.deleted_at IS NULL
) AS excluded
FROM unnest(CAST(:segment_ids AS bigint[])) AS requested (segment_id)
""")

_LOCK_ROLLOUT = text(
    "SELECT segment_id FROM rollouts WHERE segment_id = :segment_id FOR NO KEY UPDATE"
)


def rollout_record(row: Row[Any]) -> RolloutRecord:
    """Build the record from a row with `ROLLOUT_COLUMNS`."""
    columns = dict(row._mapping)
    columns["state"] = RolloutState(row.state)
    columns["phase"] = PassPhase(row.phase)
    columns["status"] = RolloutStatus(row.status)
    return RolloutRecord(**columns)


async def lock_rollout(session: WriteSession, segment_id: int) -> RolloutRecord | None:
    """Lock a segment's rollout for an update, and return it; None if the segment has none."""
    # Two statements, because a statement's snapshot is older than the lock that it waits for.
    if (await session.execute(_LOCK_ROLLOUT, {"segment_id": segment_id})).one_or_none() is None:
        return None
    return await read_rollout(session, segment_id)


async def read_rollout(session: WriteSession, segment_id: int) -> RolloutRecord:
    """Return the rollout of a segment that has one, in the transaction that locked it."""
    rows = await session.execute(_READ_ROLLOUTS, {"segment_ids": [segment_id]})
    return rollout_record(rows.one())


async def rollouts_by_segment(
    session: ReadSession, segment_ids: Sequence[int]
) -> dict[int, RolloutRecord]:
    """Return the rollout of each segment; segments without a rollout are absent."""
    rows = await session.execute(_READ_ROLLOUTS, {"segment_ids": list(segment_ids)})
    return {row.segment_id: rollout_record(row) for row in rows}


async def rollout_counts(
    session: ReadSession, segment_ids: Sequence[int]
) -> dict[int, RolloutCounts]:
    """Return exact numbers of users. Each costs an index scan."""
    rows = await session.execute(_COUNT_USERS, {"segment_ids": list(segment_ids)})
    return {row.segment_id: RolloutCounts(row.enrolled, row.excluded) for row in rows}


async def count_by_status(session: ReadSession) -> dict[str, int]:
    """Return the number of rollouts by status, for each status, without deleted segments."""
    rows = await session.execute(_COUNT_BY_STATUS)
    return {**dict.fromkeys(RolloutStatus, 0), **{row.status: row.rollout_count for row in rows}}


async def read_pass_progress(session: ReadSession, *, limit: int) -> dict[str, float]:
    """Return the progress (0 to 1) of passes in progress by slug, the latest `limit` rollouts."""
    rows = await session.execute(_READ_PASS_PROGRESS, {"limit": limit})
    return {row.slug: float(row.progress) for row in rows}
