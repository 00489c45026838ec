"""A database of the version before migration 0008, and the statements of that version."""

import asyncio

from segmentql.adapters import migrations
from segmentql.settings import Settings
from tests.conftest import Sql

STATES = ("ACTIVE", "PAUSED", "CANCELLED", "FAILED", "WITHDRAWING")
EXCLUDED_USERS = 3000

# Two users at each moment. Each has a leave and a join. The order of the rows is arbitrary.
FILL_HISTORY = """
INSERT INTO history
    (user_id, at, segment_id, operation, membership_id, cause, actor, recorded_at)
SELECT 1 + pair % 1000, at, CASE i % 2 WHEN 0 THEN 1 ELSE 2 END,
    CASE i % 2 WHEN 0 THEN 'JOINED' ELSE 'LEFT' END::operation, pair, 'MANUAL', 'ada', at
FROM generate_series(0, $1::bigint - 1) AS i
CROSS JOIN LATERAL (SELECT i / 2 AS pair) AS pairs
CROSS JOIN LATERAL (
    SELECT date_trunc('day', now()) - interval '150 days'
        + (pair / 2) * (interval '149 days' / ($1::bigint / 4)) AS at
) AS moment
ORDER BY hashint8(i)
"""

FILL = f"""
INSERT INTO segments (slug, created_at, updated_at)
    SELECT 'S' || number, now(), now() FROM generate_series(1, 2 + {len(STATES)}) AS number;
INSERT INTO users (id, created_at) SELECT id, now() FROM generate_series(1, {EXCLUDED_USERS}) AS id;
INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, expires_at, cause, actor)
    SELECT id, 3, now() - interval '1 day', now() - interval '1 day',
        CASE WHEN id % 2 = 0 THEN now() - interval '1 hour' END, 'MANUAL', 'ada'
    FROM generate_series(1, 100) AS id;
INSERT INTO exclusions (user_id, segment_id, excluded_at)
    SELECT id, 1, now() - interval '1 day' FROM generate_series(1, {EXCLUDED_USERS}) AS id;
INSERT INTO rollouts (segment_id, state, enroll_new_users, actor, paused_at, failure, max_percent,
        pass_number, phase, stage, percent, removes_members, last_insert_seq, bound_hash,
        bound_user_id, cursor_user_id, users_total, users_seen, heartbeat_at)
    SELECT 2 + number, state, false, 'ada',
        CASE WHEN state IN ('PAUSED', 'WITHDRAWING', 'CANCELLED') THEN now() END,
        CASE state WHEN 'FAILED' THEN 'broken' END,
        25, number, 'WORKING', 1, 25, false, 10, 20, 30, 40, 50, 45, now()
    FROM unnest('{{{",".join(STATES)}}}'::rollout_state[])
        WITH ORDINALITY AS states (state, number);
INSERT INTO rollout_stages (segment_id, number, percent, starts_at)
    SELECT 2 + rollout, number, 25 * number, date_trunc('day', now()) + number * interval '1 day'
    FROM generate_series(1, {len(STATES)}) AS rollout, generate_series(1, 2) AS number;
"""

# The privileges of the previous version, as far as its statements below need them.
OLD_GRANTS = """
GRANT SELECT, INSERT, DELETE ON users, memberships, exclusions TO segmentql_service;
GRANT UPDATE (created_at) ON users TO segmentql_service;
GRANT SELECT ON history, segments TO segmentql_service;
GRANT UPDATE (name) ON segments TO segmentql_service;
GRANT SELECT, INSERT, UPDATE ON deleted_users TO segmentql_service;
GRANT EXECUTE ON FUNCTION make_history_partitions(date, integer) TO segmentql_service;
"""

# The statements of the previous version: their locks, columns and settings.
OLD_LOCK_AND_STORE_USER = """
WITH found AS MATERIALIZED (
    SELECT id FROM segments WHERE slug IN ('S1', 'S2') AND deleted_at IS NULL
    ORDER BY id FOR KEY SHARE
), stored AS (
    INSERT INTO users (id, created_at)
    SELECT $1::bigint, clock_timestamp() FROM (SELECT count(*) FROM found)
    ON CONFLICT (id) DO UPDATE SET created_at = users.created_at WHERE false
    RETURNING id
)
SELECT count(*) FROM stored
"""
OLD_CHANGE = """
change AS MATERIALIZED (
    SELECT at, set_config('segmentql.moment', at::text, true),
        set_config('segmentql.actor', 'old', true)
    FROM (
        SELECT greatest(clock_timestamp(), (
            SELECT max(at) + interval '1 microsecond' FROM history
            WHERE user_id = $1 AND at >= now()
        )) AS at
    ) AS moment
)
"""
OLD_UPDATE_MEMBERSHIPS = f"""
WITH {OLD_CHANGE},
removed AS (
    DELETE FROM memberships m USING change WHERE m.user_id = $1 AND m.segment_id = $3
), excluded_now AS (
    INSERT INTO exclusions (user_id, segment_id, excluded_at)
    SELECT $1, $3, at FROM change ON CONFLICT DO NOTHING
), admitted AS (
    DELETE FROM exclusions WHERE user_id = $1 AND segment_id = $2
)
INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause, actor)
SELECT $1, $2, at, at, 'MANUAL', 'old' FROM change
"""
OLD_DELETE_USER = f"""
WITH {OLD_CHANGE},
ended AS (DELETE FROM memberships m USING change WHERE m.user_id = $1),
admitted AS (DELETE FROM exclusions WHERE user_id = $1),
kept AS (
    INSERT INTO deleted_users (id, deleted_at) SELECT $1, at FROM change
    ON CONFLICT (id) DO UPDATE SET deleted_at = excluded.deleted_at
)
DELETE FROM users WHERE id = $1
"""


async def upgrade(settings: Settings, revision: str = "head") -> None:
    await asyncio.to_thread(migrations.upgrade, settings, revision)


async def make_old_database(settings: Settings, sql: Sql, *, rows: int) -> None:
    """Create a database of the previous version.

    Its history has `rows` entries of five months. Two months are in the DEFAULT partition.
    """
    await upgrade(settings, "0007")
    await sql.execute(OLD_GRANTS)
    await sql.execute("SELECT make_history_partitions((now() - interval '90 days')::date, 3)")
    await sql.execute(FILL)
    await sql.execute("SET session_replication_role = replica")
    await sql.execute(FILL_HISTORY, rows)
    await sql.execute("SET session_replication_role = DEFAULT")
    await sql.execute("CREATE SCHEMA copy")
    await sql.execute("CREATE TABLE copy.history AS SELECT * FROM history")
