"""Checks of an upgraded database."""

from tests.conftest import Sql
from tests.online_upgrade.previous_version import STATES

FIRST_NEW_POSITION = 1_000_000_000_000

MIGRATION = "application_name = 'segmentql migrate' AND datname = current_database()"
MIGRATION_WAITS = f"""
SELECT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE {MIGRATION} AND wait_event_type = 'Lock' AND wait_event = $1)
"""


async def assert_upgraded(sql: Sql) -> None:
    """Check everything that the two migrations promise."""
    columns = "user_id, at, segment_id, operation, membership_id, cause, actor, recorded_at"
    lost = f"SELECT {columns} FROM copy.history EXCEPT ALL SELECT {columns} FROM history"
    assert await sql.fetchval(f"SELECT count(*) FROM ({lost}) AS lost") == 0
    # Entries of before 0008 are below the sequence, and the later ones are above.
    old = await sql.fetchrow(
        """
        SELECT count(*) AS total, min(position) AS first, max(position) AS last
        FROM history WHERE position < $1
        """,
        FIRST_NEW_POSITION,
    )
    assert old is not None
    assert (old["first"], old["last"]) == (1, old["total"])
    assert old["total"] >= await sql.fetchval("SELECT count(*) FROM copy.history")
    assert (
        await sql.fetchval(
            """
            SELECT count(*) FROM (
                SELECT (at, user_id, operation) < lag((at, user_id, operation))
                    OVER (ORDER BY position) AS wrong
                FROM history WHERE position < $1
            ) AS entries WHERE wrong
            """,
            FIRST_NEW_POSITION,
        )
        == 0
    )
    assert await sql.fetchval(
        """
        SELECT (SELECT max(recorded_at) FROM history WHERE position < $1)
            < (SELECT min(recorded_at) FROM history WHERE position >= $1)
        """,
        FIRST_NEW_POSITION,
    )
    assert await sql.fetchval("SELECT count(*) = count(DISTINCT position) FROM history")
    assert await sql.fetchval(
        "SELECT bool_and(attnotnull) FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
        "WHERE attname = 'position' AND relname ~ '^history' AND relkind IN ('r', 'p') "
        "AND relnamespace = 'public'::regnamespace"
    )
    await assert_index_is_complete(sql)
    await assert_logs_are_complete(sql)


async def assert_index_is_complete(sql: Sql) -> None:
    """Check that the index on positions is valid on `history` and on each partition."""
    assert (
        await sql.fetchval(
            """
            SELECT count(*) FROM pg_inherits partition
            WHERE inhparent = 'history'::regclass AND NOT EXISTS (
                SELECT FROM pg_inherits attached JOIN pg_index ON indexrelid = attached.inhrelid
                WHERE attached.inhparent = 'ix_history_position'::regclass
                    AND indrelid = partition.inhrelid AND indisvalid AND indisready)
            """
        )
        == 0
    )
    assert await sql.fetchval(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_history_position'::regclass"
    )


async def assert_logs_are_complete(sql: Sql) -> None:
    """Check that the last entry of the log agrees with each exclusion, and the rollouts' events."""
    assert (
        await sql.fetch(
            """
            SELECT e.user_id, e.segment_id, last.operation
            FROM exclusions e FULL JOIN (
                SELECT DISTINCT ON (user_id, segment_id) user_id, segment_id, operation
                FROM exclusion_log WHERE user_id IN (SELECT id FROM users)
                ORDER BY user_id, segment_id, id DESC
            ) AS last USING (user_id, segment_id)
            WHERE (e.excluded_at IS NOT NULL) <> (last.operation IS NOT DISTINCT FROM 'EXCLUDED')
            """
        )
        == []
    )
    events = await sql.fetch(
        """
        SELECT event::text, state::text, actor, failure, paused_at IS NULL, percents::text,
            start_times = ARRAY[date_trunc('day', now()) + interval '1 day',
                date_trunc('day', now()) + interval '2 days']
        FROM rollout_events ORDER BY segment_id
        """
    )
    assert [tuple(row) for row in events] == [
        (
            "BACKFILLED",
            state,
            None,
            "broken" if state == "FAILED" else None,
            state in {"ACTIVE", "FAILED"},
            "{25.000,50.000}",
            True,
        )
        for state in STATES
    ]
    passes = await sql.fetch(
        """
        SELECT pass_number, stage, percent::int, removes_members, is_withdrawal,
            started_at = sampled_at, last_insert_seq, bound_hash, bound_user_id, users_total,
            finished_at
        FROM rollout_passes ORDER BY segment_id
        """
    )
    assert [tuple(row) for row in passes] == [
        (number, 1, 25, False, state == "WITHDRAWING", True, 10, 20, 30, 50, None)
        for number, state in enumerate(STATES, start=1)
    ]
