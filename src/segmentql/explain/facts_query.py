"""The statement that reads the facts of an explanation."""

from typing import Final

from sqlalchemy import text

from segmentql.segments.rows import SEGMENT_COLUMNS

PASS_COLUMNS: Final = (
    "stage",
    "percent",
    "is_withdrawal",
    "started_at",
    "sampled_at",
    "last_insert_seq",
    "bound_hash",
    "bound_user_id",
    "finished_at",
)


_ENTRY_COLUMNS: Final = (
    "membership_id",
    "operation",
    "at",
    "recorded_at",
    "cause",
    "actor",
    "import_id",
)


def _pass_columns(name: str) -> str:
    return ", ".join(f"{name}.{column} AS {name}_{column}" for column in PASS_COLUMNS)


def _entry_columns(name: str) -> str:
    return ", ".join(f"{name}.{column} AS {name}_{column}" for column in _ENTRY_COLUMNS)


def _is_pass_unknown(name: str) -> str:
    """Return the SQL query of whether a pass between a pass and the next one was not recorded.

    Each pass, each plan and each withdrawal has the next number. So a number that has neither a
    recorded pass nor a recorded event belongs to a process of the version before migration 0008.
    """
    return f"""
    SELECT coalesce(following.pass_number - 1, rollout.pass_number)
        - coalesce({name}.pass_number, 0) > (
            SELECT count(*) FROM rollout_events e
            WHERE e.segment_id = rollout.segment_id
              AND e.at > coalesce({name}.started_at, '-infinity')
              AND e.at <= coalesce(following.started_at, 'infinity')
              AND (e.event = 'SET' OR e.event = 'CANCELLED' AND e.state = 'WITHDRAWING')
        ) AS is_unknown
    FROM rollout
    LEFT JOIN {name} ON true
    LEFT JOIN LATERAL (
        SELECT p.pass_number, p.started_at FROM rollout_passes p
        WHERE p.segment_id = rollout.segment_id
          AND p.pass_number > coalesce({name}.pass_number, 0)
        ORDER BY p.pass_number LIMIT 1
    ) AS following ON true
    """


# One statement, so that all facts are of one snapshot. `latest_at` is the latest time of an event
# that counts. Without a time in the past every visible event counts, including one that was
# recorded between now(), the start of the statement, and the snapshot.
READ_FACTS: Final = text(f"""
WITH moment AS MATERIALIZED (
    SELECT coalesce(CAST(:as_of AS timestamptz), now()) AS at,
        coalesce(CAST(:as_of AS timestamptz), 'infinity') AS latest_at,
        CAST(:as_of AS timestamptz) IS NOT NULL AS is_past,
        coalesce(CAST(:as_of AS timestamptz) > now(), false) AS in_the_future,
        earliest_at, coalesce(CAST(:as_of AS timestamptz) < earliest_at, false) AS is_dropped
    FROM dropped_history
), segment AS MATERIALIZED (
    -- If the clock was set back, two segments of one slug can exist at one time. The one that was
    -- created last counts, as for `segments(asOf:)`.
    SELECT s.* FROM segments s, moment
    WHERE s.slug = :slug AND s.created_at <= moment.latest_at
    ORDER BY s.id DESC LIMIT 1
), lifetime AS MATERIALIZED (
    -- If the clock was set back, lifetimes can overlap. The one that was inserted last counts.
    SELECT created_at, key, insert_seq FROM (
        SELECT created_at, key, insert_seq, CAST('infinity' AS timestamptz) AS deleted_at
        FROM users WHERE id = :user_id
        UNION ALL
        SELECT created_at, key, insert_seq, deleted_at
        FROM user_lifetimes, moment WHERE user_id = :user_id AND moment.is_past
    ) AS lifetimes, moment
    WHERE created_at <= moment.latest_at AND deleted_at > moment.at
    ORDER BY insert_seq DESC LIMIT 1
), deletion AS MATERIALIZED (
    -- A lifetime says when the user was stored. Deletions before migration 0008 have none.
    SELECT max(deleted_at) FILTER (WHERE deleted_at <= moment.latest_at) AS before,
        max(deleted_at) FILTER (WHERE deleted_at > moment.latest_at AND NOT has_lifetime) AS later
    FROM (
        SELECT deleted_at, EXISTS (
            SELECT FROM user_lifetimes l
            WHERE l.user_id = d.id AND l.deleted_at = d.deleted_at
        ) AS has_lifetime
        FROM deleted_users d WHERE id = :user_id
        UNION ALL
        SELECT deleted_at, true FROM user_lifetimes WHERE user_id = :user_id
    ) AS deletions, moment
), last_entry AS MATERIALIZED (
    SELECT h.* FROM history h, segment, moment
    WHERE h.user_id = :user_id AND h.segment_id = segment.id AND h.at <= moment.latest_at
    ORDER BY h.at DESC LIMIT 1
), join_entry AS MATERIALIZED (
    SELECT h.* FROM history h, last_entry
    WHERE h.user_id = :user_id AND h.segment_id = last_entry.segment_id
        AND h.membership_id = last_entry.membership_id AND h.operation = 'JOINED'
        AND h.at <= last_entry.at
), member AS MATERIALIZED (
    -- If old partitions of history were dropped, a current membership has no join.
    SELECT m.*, least(m.expires_at, segment.deleted_at) AS ends_at,
        coalesce(least(m.expires_at, segment.deleted_at) <= now(), false) AS has_ended
    FROM segment CROSS JOIN moment
    JOIN memberships m ON m.user_id = :user_id AND m.segment_id = segment.id
    LEFT JOIN last_entry ON true
    WHERE m.id = last_entry.membership_id OR NOT moment.is_past
), exclusion AS MATERIALIZED (
    SELECT e.excluded_at AS at, e.actor, e.import_id FROM exclusions e, segment, moment
    WHERE e.user_id = :user_id AND e.segment_id = segment.id AND NOT moment.is_past
    UNION ALL
    SELECT last.at, last.actor, last.import_id
    FROM moment CROSS JOIN lifetime CROSS JOIN LATERAL (
        SELECT l.at, l.actor, l.import_id, l.operation FROM exclusion_log l, segment
        WHERE l.user_id = :user_id AND l.segment_id = segment.id AND l.at <= moment.latest_at
        ORDER BY l.id DESC LIMIT 1
    ) AS last
    WHERE moment.is_past AND last.operation = 'EXCLUDED' AND last.at >= lifetime.created_at
), event AS MATERIALIZED (
    SELECT e.* FROM rollout_events e, segment, moment
    WHERE e.segment_id = segment.id AND e.at <= moment.latest_at ORDER BY e.id DESC LIMIT 1
), plan_event AS MATERIALIZED (
    SELECT CASE last.event WHEN 'SET' THEN last.at END AS at, last.actor
    FROM event CROSS JOIN LATERAL (
        SELECT e.* FROM rollout_events e
        WHERE e.segment_id = event.segment_id AND e.id <= event.id
            AND e.event IN ('SET', 'BACKFILLED')
        ORDER BY e.id DESC LIMIT 1
    ) AS last
    -- Otherwise another plan, which was not recorded when it was set, has replaced that plan.
    WHERE (last.percents, last.enroll_new_users, last.expires_at)
        IS NOT DISTINCT FROM (event.percents, event.enroll_new_users, event.expires_at)
), next_event AS MATERIALIZED (
    SELECT e.* FROM segment JOIN rollout_events e ON e.segment_id = segment.id
    LEFT JOIN event ON true
    WHERE e.id > coalesce(event.id, 0) ORDER BY e.id LIMIT 1
), first_event AS MATERIALIZED (
    SELECT e.at FROM rollout_events e, segment
    WHERE e.segment_id = segment.id AND e.event = 'BACKFILLED'
), rollout AS MATERIALIZED (
    SELECT r.*, segment.deleted_at,
        ARRAY(SELECT s.percent FROM rollout_stages s
            WHERE s.segment_id = r.segment_id ORDER BY s.number) AS percents,
        ARRAY(SELECT s.starts_at FROM rollout_stages s
            WHERE s.segment_id = r.segment_id ORDER BY s.number) AS start_times
    FROM segment JOIN rollouts r ON r.segment_id = segment.id
), latest_pass AS MATERIALIZED (
    SELECT p.* FROM rollout_passes p, segment, moment
    WHERE p.segment_id = segment.id AND p.started_at <= moment.latest_at
    ORDER BY p.pass_number DESC LIMIT 1
), later_pass AS MATERIALIZED (
{_is_pass_unknown("latest_pass")}
), decision AS MATERIALIZED (
    SELECT max(
        CASE WHEN p.sampled_at <= moment.latest_at THEN p.sampled_at ELSE p.started_at END
    ) AS at
    FROM rollout_passes p, segment, moment
    WHERE p.segment_id = segment.id AND p.started_at <= moment.latest_at AND NOT p.is_withdrawal
), join_pass AS MATERIALIZED (
    SELECT p.* FROM rollout_passes p, join_entry
    WHERE p.segment_id = join_entry.segment_id AND p.sampled_at <= join_entry.at
    ORDER BY p.pass_number DESC LIMIT 1
), later_join_pass AS MATERIALIZED (
{_is_pass_unknown("join_pass")}
), removal_pass AS MATERIALIZED (
    SELECT * FROM (
        SELECT p.* FROM rollout_passes p, last_entry
        WHERE p.segment_id = last_entry.segment_id AND p.sampled_at <= last_entry.at
          AND last_entry.operation = 'LEFT' AND last_entry.cause = 'ROLLOUT'
        ORDER BY p.pass_number DESC LIMIT 1
    ) AS latest
    WHERE removes_members  -- Otherwise a later pass, which was not recorded, removed the user.
), unknown_plan AS MATERIALIZED (
    -- The plan is not known if a process of the version before migration 0008 may have changed it:
    -- it then differs from the plan of the next event, or, after the last event, from the rollout.
    SELECT true AS is_unknown, event.at AS since, next_event.at AS until
    FROM rollout CROSS JOIN later_pass
    LEFT JOIN event ON true
    LEFT JOIN next_event ON true
    WHERE CASE
        WHEN event.id IS NULL
        THEN next_event.event IS DISTINCT FROM 'SET' OR later_pass.is_unknown
        WHEN next_event.id IS NOT NULL
        THEN next_event.event <> 'SET'
            AND (event.percents, event.enroll_new_users, event.expires_at) IS DISTINCT FROM
                (next_event.percents, next_event.enroll_new_users, next_event.expires_at)
        ELSE (event.percents, event.start_times, event.enroll_new_users, event.expires_at)
                IS DISTINCT FROM (rollout.percents, rollout.start_times, rollout.enroll_new_users,
                    rollout.expires_at)
            -- The deletion of a segment stops its rollout without an event, and so does the end of
            -- a withdrawal.
            OR rollout.deleted_at IS NULL AND (
                event.paused_at IS DISTINCT FROM rollout.paused_at
                OR event.state <> rollout.state
                    AND (event.state, rollout.state) <> ('WITHDRAWING', 'CANCELLED'))
        END
)
SELECT moment.at AS now, moment.is_past, moment.in_the_future, moment.is_dropped,
    moment.earliest_at,
    {SEGMENT_COLUMNS}, s.deleted_by AS segment_deleted_by,
    rollout_hash_v1(s.id, :user_id) AS hash,
    lifetime.created_at AS user_created_at, lifetime.key AS user_key, lifetime.insert_seq,
    deletion.before AS user_deleted_at, deletion.later AS user_deleted_later_at,
    {_entry_columns("last_entry")},
    {_entry_columns("join_entry")},
    member.id AS member_id, member.joined_at AS member_joined_at,
    member.updated_at AS member_updated_at, member.expires_at AS member_expires_at,
    member.cause AS member_cause, member.actor AS member_actor,
    member.import_id AS member_import_id, member.ends_at AS member_ends_at,
    member.has_ended AS member_has_ended,
    exclusion.at AS excluded_at, exclusion.actor AS excluded_by,
    exclusion.import_id AS exclusion_import_id,
    event.state, event.at AS event_at, event.actor AS event_actor, event.enroll_new_users,
    event.expires_at AS plan_expires_at, event.paused_at, event.failure, event.percents,
    event.start_times, plan_event.at AS plan_set_at, plan_event.actor AS plan_set_by,
    unknown_plan.since AS plan_unknown_since, unknown_plan.until AS plan_unknown_until,
    unknown_plan.is_unknown AS is_plan_unknown,
    later_pass.is_unknown AS is_latest_pass_unknown,
    rollout.phase = 'DUE' AND NOT moment.is_past AS is_pass_due,
    later_join_pass.is_unknown OR join_entry.at < first_event.at AS is_join_pass_unknown,
    decision.at AS decided_at,
    {_pass_columns("latest_pass")}, {_pass_columns("join_pass")}, {_pass_columns("removal_pass")}
FROM moment
CROSS JOIN deletion
LEFT JOIN segment s ON true
LEFT JOIN lifetime ON true
LEFT JOIN last_entry ON true
LEFT JOIN join_entry ON true
LEFT JOIN member ON true
LEFT JOIN exclusion ON true
LEFT JOIN event ON true
LEFT JOIN plan_event ON true
LEFT JOIN unknown_plan ON true
LEFT JOIN first_event ON true
LEFT JOIN rollout ON true
LEFT JOIN later_pass ON true
LEFT JOIN later_join_pass ON true
LEFT JOIN decision ON true
LEFT JOIN latest_pass ON true
LEFT JOIN join_pass ON true
LEFT JOIN removal_pass ON true
""")
