"""Rollouts: their plan and progress, the hash that selects users, and how later users join."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# `arrival` numbers users in the order in which they are stored. A pass works on the users up to the
# last value at its start. Users that are already stored get 0, because a constant default does not
# rewrite the table.
TABLES = (
    "ALTER TABLE users ADD arrival bigint NOT NULL DEFAULT 0",
    """
ALTER TABLE users ALTER arrival DROP DEFAULT,
    ALTER arrival ADD GENERATED ALWAYS AS IDENTITY
""",
    """
CREATE TYPE rollout_state AS ENUM ('ACTIVE', 'PAUSED', 'WITHDRAWING', 'CANCELLED', 'FAILED')
""",
    "CREATE TYPE pass_phase AS ENUM ('DUE', 'SAMPLING', 'WORKING', 'DONE')",
    """
CREATE TABLE rollouts (
    segment_id bigint CONSTRAINT pk_rollouts PRIMARY KEY
        CONSTRAINT fk_rollouts_segment_id REFERENCES segments,
    state rollout_state NOT NULL,
    enroll_new_users boolean NOT NULL,
    expires_at timestamptz,
    actor text,
    held_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    failure text,
    failures integer NOT NULL DEFAULT 0,
    reach numeric(6, 3) NOT NULL,
    pass_number bigint NOT NULL,
    phase pass_phase NOT NULL,
    stage integer NOT NULL,
    percent numeric(6, 3) NOT NULL,
    takes_out boolean NOT NULL,
    last_arrival bigint NOT NULL,
    bound_hash bigint NOT NULL,
    bound_user_id bigint NOT NULL,
    cursor_user_id bigint NOT NULL,
    users_total bigint NOT NULL,
    users_seen bigint NOT NULL,
    touched_at timestamptz NOT NULL,
    CONSTRAINT ck_rollouts_held_when_stopped CHECK (
        state = 'FAILED'
        OR (held_at IS NOT NULL) = (state IN ('PAUSED', 'WITHDRAWING', 'CANCELLED'))),
    CONSTRAINT ck_rollouts_failure_when_failed CHECK ((failure IS NOT NULL) = (state = 'FAILED'))
)
""",
    """
CREATE INDEX ix_rollouts_unfinished ON rollouts (segment_id)
    WHERE state IN ('ACTIVE', 'WITHDRAWING') AND finished_at IS NULL
""",
    """
CREATE INDEX ix_rollouts_enrolling ON rollouts (segment_id)
    WHERE enroll_new_users AND state IN ('ACTIVE', 'PAUSED', 'FAILED')
""",
    """
CREATE TABLE rollout_stages (
    segment_id bigint NOT NULL CONSTRAINT fk_rollout_stages_segment_id REFERENCES rollouts,
    number integer NOT NULL,
    percent numeric(6, 3) NOT NULL,
    starts_at timestamptz NOT NULL,
    done_at timestamptz,
    CONSTRAINT pk_rollout_stages PRIMARY KEY (segment_id, number),
    CONSTRAINT ck_rollout_stages_number_range CHECK (number BETWEEN 1 AND 50),
    CONSTRAINT ck_rollout_stages_percent_range CHECK (percent BETWEEN 0 AND 100)
)
""",
)

# A test compares this with the Python function in `src/segmentql/rollouts/sampling.py`.
ROLLOUT_HASH = """
CREATE FUNCTION rollout_hash_v1(segment_id bigint, user_id bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN substring(sha256(int8send(segment_id) || int8send(user_id)) FROM 1 FOR 6)::bigint
"""

# A transaction that stores a user also adds the user to the segments whose rollouts enroll new
# users. A writer that adds or removes the user manually lists those segments in
# `segmentql.by_hand`, and the trigger skips them.
#
# The trigger takes the same locks as every transaction that adds members, so that it either sees a
# deletion of the segment or the deletion waits for it.
ENROLL_NEW_USERS = (
    """
CREATE FUNCTION rollouts_enrolling(moment timestamptz)
RETURNS TABLE (segment_id bigint, expires_at timestamptz, actor text, hash_limit numeric)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT r.segment_id, r.expires_at, r.actor, stage.percent / 100 * 281474976710656
    FROM rollouts r
    JOIN segments s ON s.id = r.segment_id
    CROSS JOIN LATERAL (
        SELECT percent FROM rollout_stages
        WHERE rollout_stages.segment_id = r.segment_id AND starts_at <= coalesce(r.held_at, moment)
        ORDER BY number DESC LIMIT 1
    ) AS stage
    WHERE r.enroll_new_users AND r.state IN ('ACTIVE', 'PAUSED', 'FAILED')
      AND NOT (r.state = 'FAILED' AND r.held_at IS NOT NULL)  -- it failed while withdrawing
      AND (r.expires_at IS NULL OR r.expires_at > moment) AND s.deleted_at IS NULL;
END
""",
    """
CREATE FUNCTION enroll_new_users() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    by_hand bigint[] := coalesce(nullif(current_setting('segmentql.by_hand', true), ''), '{}');
    moment timestamptz := clock_timestamp();
    segment_ids bigint[];
BEGIN
    IF NOT EXISTS (SELECT FROM new_rows) THEN
        RETURN NULL;
    END IF;
    WITH enrolling AS MATERIALIZED (
        SELECT segment_id, hash_limit FROM rollouts_enrolling(moment)
        WHERE segment_id <> ALL (by_hand)
    )
    SELECT array_agg(segment_id ORDER BY segment_id) INTO segment_ids
    FROM enrolling WHERE EXISTS (
        SELECT FROM new_rows u WHERE rollout_hash_v1(segment_id, u.id) < hash_limit);
    IF segment_ids IS NULL THEN
        RETURN NULL;
    END IF;

    PERFORM pg_advisory_xact_lock_shared(7001, (id % 2147483647)::integer)
    FROM unnest(segment_ids) AS id;
    PERFORM FROM segments WHERE id = ANY (segment_ids) ORDER BY id FOR KEY SHARE;
    -- The clock is read after the locks, and the plan and the segment may have changed.
    moment := clock_timestamp();
    WITH enrolling AS MATERIALIZED (
        SELECT * FROM rollouts_enrolling(moment) WHERE segment_id = ANY (segment_ids)
    )
    INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, expires_at, cause, actor)
    SELECT u.id, r.segment_id, joined.at, joined.at, r.expires_at, 'ROLLOUT', r.actor
    FROM enrolling r
    JOIN new_rows u ON rollout_hash_v1(r.segment_id, u.id) < r.hash_limit
    CROSS JOIN LATERAL (
        -- Later than the history of an earlier user with this id.
        SELECT greatest(moment, (
            SELECT max(h.at) + interval '1 microsecond'
            FROM history h WHERE h.user_id = u.id AND h.at >= now()
        )) AS at
    ) AS joined
    WHERE r.expires_at IS NULL OR r.expires_at > joined.at
    ORDER BY u.id, r.segment_id;
    RETURN NULL;
END
$$
""",
    "REVOKE ALL ON FUNCTION enroll_new_users() FROM PUBLIC",
    """
CREATE TRIGGER users_enroll AFTER INSERT ON users
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION enroll_new_users()
""",
)

DROP = (
    "DROP TRIGGER users_enroll ON users",
    "DROP FUNCTION enroll_new_users()",
    "DROP FUNCTION rollouts_enrolling(timestamptz)",
    "DROP FUNCTION rollout_hash_v1(bigint, bigint)",
    "DROP TABLE rollout_stages, rollouts",
    "DROP TYPE pass_phase",
    "DROP TYPE rollout_state",
    "ALTER TABLE users DROP COLUMN arrival",
)


def upgrade() -> None:
    for statement in (*TABLES, ROLLOUT_HASH, *ENROLL_NEW_USERS):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    for statement in DROP:
        op.get_bind().exec_driver_sql(statement)
