"""Record positions of history, API keys, exclusions, user lifetimes, and rollout plans and passes.

This migration only adds, so that processes of the previous version continue to work. Migration 0009
numbers the history that exists already.
"""

from types import ModuleType

from alembic import context, op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Statements that need an exclusive lock run here. While one of them waits for a lock, all later
# readers and writers of the table wait behind it. So an attempt waits at most 0.3 s for each lock
# and then gives up all its locks. A writer that has one lock and waits for another can then go on.
# PostgreSQL looks for a deadlock only after a second (`deadlock_timeout`).
#
# SHARE UPDATE EXCLUSIVE conflicts with autovacuum, which PostgreSQL cancels for a wait of a second,
# and not with readers and writers.
WITH_LOCK_RETRIES = """
DO $$
DECLARE
    attempts CONSTANT integer := 60;
    limit_before text := current_setting('lock_timeout');
BEGIN
    FOR attempt IN 1 .. attempts LOOP
        BEGIN
            LOCK TABLE {tables} IN SHARE UPDATE EXCLUSIVE MODE;
            PERFORM set_config('lock_timeout', least(100 * attempt, 300)::text, true);
            {statement};
            PERFORM set_config('lock_timeout', limit_before, true);
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = attempts THEN
                RAISE;
            END IF;
        END;
        PERFORM pg_sleep(0.5);
    END LOOP;
END
$$
"""

# Every table that this migration changes or that its triggers read.
LOCKED_TABLES = "segments, users, memberships, exclusions, rollouts, rollout_stages, history"

COLUMNS = (
    "ALTER TABLE memberships ADD api_key_id text, ADD import_id bigint",
    """
ALTER TABLE segments
    ADD created_by text, ADD updated_by text, ADD deleted_by_api_key_id text
""",
    "ALTER TABLE users ADD created_by text, ADD created_by_api_key_id text",
    "ALTER TABLE exclusions ADD actor text, ADD api_key_id text, ADD import_id bigint",
    "ALTER TABLE rollouts ADD api_key_id text",
)

# The lock on `history` precedes `nextval`, because both are in one INSERT. Readers of positions
# depend on this order. The default is for entries that the owner inserts without the trigger, or
# with its previous version. Writers that waited for this migration run the new version.
#
# The sequence starts above every position of migration 0009. CACHE 1 makes a session take its
# numbers when it needs them, so that a position that was taken later is higher.
HISTORY = (
    "ALTER TABLE history ADD api_key_id text, ADD import_id bigint, ADD position bigint",
    """
CREATE SEQUENCE history_position_seq START 1000000000000 CACHE 1 OWNED BY history.position
""",
    "ALTER TABLE history ALTER position SET DEFAULT nextval('history_position_seq')",
)

# A writer sets the time, the cause, the actor, the API key and the import by SET LOCAL
# `segmentql.moment`, `.cause`, `.actor`, `.api_key_id` and `.import_id`. Without them a change is
# MANUAL, without an actor, now. An expired membership left when it expired, whatever the writer
# sets and however late it comes. So an end is right without a worker.
#
# The entries of one INSERT, UPDATE or DELETE get their positions in order of time, user, and leaves
# before joins.
RECORD_MEMBERSHIPS = """
CREATE OR REPLACE FUNCTION record_memberships() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    recorded timestamptz := clock_timestamp();
    moment timestamptz;
    set_cause cause;
    set_actor text;
    set_key_id text;
    set_import_id bigint;
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO history (at, user_id, segment_id, operation, membership_id, cause, actor,
            api_key_id, import_id, recorded_at, position)
        SELECT joined_at, user_id, segment_id, 'JOINED', id, cause, actor, api_key_id, import_id,
            recorded, nextval('history_position_seq')  -- evaluated after the sort
        FROM new_rows ORDER BY joined_at, user_id;

    ELSIF TG_OP = 'UPDATE' THEN
        moment := coalesce(
            nullif(current_setting('segmentql.moment', true), '')::timestamptz, recorded);
        -- A row with a new id is a rejoin after the old membership expired. A FULL JOIN is never a
        -- nested loop, because the cached plan of a small change is also used for large ones.
        IF EXISTS (
            SELECT FROM old_rows o FULL JOIN new_rows n USING (user_id, segment_id)
            WHERE CASE
                WHEN o.id IS NULL OR n.id IS NULL THEN true
                WHEN n.id = o.id THEN n.joined_at <> o.joined_at
                    OR o.expires_at <= greatest(n.updated_at, moment)
                ELSE o.expires_at IS NULL OR o.expires_at >= n.joined_at END
        ) THEN
            RAISE EXCEPTION 'an expired membership cannot be revived, and an active one cannot be '
                'replaced or moved, because history would not be true'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        INSERT INTO history (at, user_id, segment_id, operation, membership_id, cause, actor,
            api_key_id, import_id, recorded_at, position)
        SELECT at, user_id, segment_id, operation, id, cause, actor, api_key_id, import_id,
            recorded, nextval('history_position_seq')
        FROM (
            SELECT user_id, segment_id, entry.*
            FROM old_rows o FULL JOIN new_rows n USING (user_id, segment_id)
            CROSS JOIN LATERAL (VALUES
                (o.expires_at, 'LEFT'::operation, o.id, 'TTL'::cause, NULL, NULL, NULL),
                (n.joined_at, 'JOINED', n.id, n.cause, n.actor, n.api_key_id, n.import_id)
            ) AS entry (at, operation, id, cause, actor, api_key_id, import_id)
            WHERE n.id IS DISTINCT FROM o.id
            ORDER BY entry.at, user_id, entry.operation
        ) AS entry;

    ELSE
        -- A transaction that deletes one of the segments has already set the time of the deletion.
        -- This waits for it, so that `recorded` is later.
        PERFORM FROM segments WHERE id IN (SELECT segment_id FROM old_rows)
        ORDER BY id FOR KEY SHARE;
        recorded := clock_timestamp();
        moment := coalesce(
            nullif(current_setting('segmentql.moment', true), '')::timestamptz, recorded);
        set_cause := coalesce(nullif(current_setting('segmentql.cause', true), ''), 'MANUAL');
        set_actor := nullif(current_setting('segmentql.actor', true), '');
        set_key_id := nullif(current_setting('segmentql.api_key_id', true), '');
        set_import_id := nullif(current_setting('segmentql.import_id', true), '')::bigint;
        INSERT INTO history (at, user_id, segment_id, operation, membership_id, cause, actor,
            api_key_id, import_id, recorded_at, position)
        SELECT at, user_id, segment_id, 'LEFT', id, cause, actor, api_key_id, import_id,
            recorded, nextval('history_position_seq')
        FROM (
            SELECT o.user_id, o.segment_id, o.id, reason.cause,
                CASE reason.cause WHEN 'TTL' THEN o.expires_at
                    WHEN 'SEGMENT_DELETED' THEN s.deleted_at
                    ELSE greatest(moment, o.joined_at + interval '1 microsecond') END AS at,
                CASE reason.cause WHEN 'TTL' THEN NULL
                    WHEN 'SEGMENT_DELETED' THEN s.deleted_by ELSE set_actor END AS actor,
                CASE reason.cause WHEN 'TTL' THEN NULL
                    WHEN 'SEGMENT_DELETED' THEN s.deleted_by_api_key_id
                    ELSE set_key_id END AS api_key_id,
                CASE WHEN reason.cause NOT IN ('TTL', 'SEGMENT_DELETED')
                    THEN set_import_id END AS import_id
            FROM old_rows o
            JOIN segments s ON s.id = o.segment_id
            CROSS JOIN LATERAL (
                SELECT CASE
                    WHEN o.expires_at <= coalesce(s.deleted_at, moment) THEN 'TTL'::cause
                    WHEN s.deleted_at IS NOT NULL THEN 'SEGMENT_DELETED'::cause
                    ELSE set_cause END AS cause
            ) AS reason
            ORDER BY at, o.user_id
        ) AS entry;
    END IF;
    RETURN NULL;
END
$$
"""

# The current exclusions are in `exclusions`. The log has every exclusion and every admission by
# hand. It has no entry when a user or a segment is deleted, which ends the exclusions.
#
# The triggers are for each row, because every change of a user by hand executes an INSERT and a
# DELETE on `exclusions`, most of them without a row. A trigger for each statement would run anyway.
EXCLUSION_LOG = (
    "CREATE TYPE exclusion_operation AS ENUM ('EXCLUDED', 'ADMITTED')",
    """
CREATE TABLE exclusion_log (
    user_id bigint NOT NULL,
    segment_id bigint NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL,
    operation exclusion_operation NOT NULL,
    actor text,
    api_key_id text,
    import_id bigint,
    CONSTRAINT pk_exclusion_log PRIMARY KEY (user_id, segment_id, id)
)
""",
    """
CREATE FUNCTION record_exclusions() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO exclusion_log
            (user_id, segment_id, at, operation, actor, api_key_id, import_id)
        VALUES (new.user_id, new.segment_id, new.excluded_at, 'EXCLUDED', new.actor,
            new.api_key_id, new.import_id);
    ELSIF current_setting('segmentql.cause', true) IS DISTINCT FROM 'USER_DELETED' THEN
        INSERT INTO exclusion_log
            (user_id, segment_id, at, operation, actor, api_key_id, import_id)
        SELECT old.user_id, old.segment_id,
            coalesce(nullif(current_setting('segmentql.moment', true), '')::timestamptz,
                clock_timestamp()),
            'ADMITTED',
            nullif(current_setting('segmentql.actor', true), ''),
            nullif(current_setting('segmentql.api_key_id', true), ''),
            nullif(current_setting('segmentql.import_id', true), '')::bigint
        FROM segments s WHERE s.id = old.segment_id AND s.deleted_at IS NULL;
    END IF;
    RETURN NULL;
END
$$
""",
    "REVOKE ALL ON FUNCTION record_exclusions() FROM PUBLIC",
    """
CREATE TRIGGER exclusions_record_insert AFTER INSERT ON exclusions
    FOR EACH ROW EXECUTE FUNCTION record_exclusions()
""",
    """
CREATE TRIGGER exclusions_record_delete AFTER DELETE ON exclusions
    FOR EACH ROW EXECUTE FUNCTION record_exclusions()
""",
)

# A stored user is a row of `users`. When the user is deleted, the row moves here.
USER_LIFETIMES = (
    """
CREATE TABLE user_lifetimes (
    user_id bigint NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    insert_seq bigint NOT NULL,
    created_at timestamptz NOT NULL,
    created_by text,
    created_by_api_key_id text,
    deleted_at timestamptz NOT NULL,
    deleted_by text,
    deleted_by_api_key_id text,
    CONSTRAINT pk_user_lifetimes PRIMARY KEY (user_id, id)
)
""",
    """
CREATE FUNCTION record_user_lifetimes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    INSERT INTO user_lifetimes (user_id, insert_seq, created_at, created_by,
        created_by_api_key_id, deleted_at, deleted_by, deleted_by_api_key_id)
    SELECT id, insert_seq, created_at, created_by, created_by_api_key_id,
        coalesce(nullif(current_setting('segmentql.moment', true), '')::timestamptz,
            clock_timestamp()),
        nullif(current_setting('segmentql.actor', true), ''),
        nullif(current_setting('segmentql.api_key_id', true), '')
    FROM old_rows ORDER BY id;
    RETURN NULL;
END
$$
""",
    "REVOKE ALL ON FUNCTION record_user_lifetimes() FROM PUBLIC",
    """
CREATE TRIGGER users_record_delete AFTER DELETE ON users
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION record_user_lifetimes()
""",
)

# `rollouts` and `rollout_stages` have the current plan and pass, `rollout_events` and
# `rollout_passes` have all of them. An event has the plan as it is after the event. The event
# BACKFILLED has the plan that this migration found; nobody knows when it was set.
ROLLOUT_LOG = (
    """
CREATE TYPE rollout_event AS ENUM ('BACKFILLED', 'SET', 'PAUSED', 'RESUMED', 'CANCELLED', 'FAILED')
""",
    """
CREATE TABLE rollout_events (
    segment_id bigint NOT NULL CONSTRAINT fk_rollout_events_segment_id REFERENCES segments,
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL,
    event rollout_event NOT NULL,
    actor text,
    api_key_id text,
    state rollout_state NOT NULL,
    enroll_new_users boolean NOT NULL,
    expires_at timestamptz,
    paused_at timestamptz,
    failure text,
    percents numeric(6, 3)[] NOT NULL,
    start_times timestamptz[] NOT NULL,
    CONSTRAINT pk_rollout_events PRIMARY KEY (segment_id, id)
)
""",
    """
INSERT INTO rollout_events (segment_id, at, event, state, enroll_new_users, expires_at,
    paused_at, failure, percents, start_times)
SELECT segment_id, clock_timestamp(), 'BACKFILLED', state, enroll_new_users, expires_at,
    paused_at, failure,
    ARRAY(SELECT percent FROM rollout_stages s WHERE s.segment_id = r.segment_id ORDER BY number),
    ARRAY(SELECT starts_at FROM rollout_stages s WHERE s.segment_id = r.segment_id ORDER BY number)
FROM rollouts r ORDER BY segment_id
""",
    """
CREATE TABLE rollout_passes (
    segment_id bigint NOT NULL CONSTRAINT fk_rollout_passes_segment_id REFERENCES segments,
    pass_number bigint NOT NULL,
    stage integer NOT NULL,
    percent numeric(6, 3) NOT NULL,
    removes_members boolean NOT NULL,
    is_withdrawal boolean NOT NULL,
    started_at timestamptz NOT NULL,
    sampled_at timestamptz,
    last_insert_seq bigint,
    bound_hash bigint,
    bound_user_id bigint,
    users_total bigint,
    finished_at timestamptz,
    CONSTRAINT pk_rollout_passes PRIMARY KEY (segment_id, pass_number),
    CONSTRAINT ck_rollout_passes_sample_complete CHECK (
        num_nulls(sampled_at, last_insert_seq, bound_hash, bound_user_id, users_total) IN (0, 5)),
    CONSTRAINT ck_rollout_passes_finished_after_sampled CHECK (
        finished_at IS NULL OR sampled_at IS NOT NULL)
)
""",
    # The passes that `rollouts` still has. They began when their stage did, or soon after.
    """
INSERT INTO rollout_passes (segment_id, pass_number, stage, percent, removes_members,
    is_withdrawal, started_at, sampled_at, last_insert_seq, bound_hash, bound_user_id,
    users_total, finished_at)
SELECT p.segment_id, pass_number, stage, percent, removes_members, is_withdrawal, started,
    CASE WHEN has_sample THEN started END, CASE WHEN has_sample THEN last_insert_seq END,
    CASE WHEN has_sample THEN bound_hash END, CASE WHEN has_sample THEN bound_user_id END,
    CASE WHEN has_sample THEN users_total END, finished
FROM (
    SELECT r.segment_id, r.pass_number, r.stage, r.percent, r.removes_members,
        r.phase IN ('WORKING', 'DONE') AS has_sample,
        r.last_insert_seq, r.bound_hash, r.bound_user_id, r.users_total,
        r.state = 'WITHDRAWING' OR r.state = 'FAILED' AND r.paused_at IS NOT NULL
            OR r.state = 'CANCELLED' AND r.max_percent = 0 AS is_withdrawal,
        least(coalesce(s.done_at, r.heartbeat_at), greatest(s.starts_at, r.started_at)) AS started,
        CASE WHEN r.phase = 'DONE' THEN coalesce(s.done_at, r.heartbeat_at) END AS finished
    FROM rollouts r
    LEFT JOIN rollout_stages s ON s.segment_id = r.segment_id AND s.number = r.stage
    WHERE r.phase <> 'DUE' AND r.stage > 0
) AS p
""",
)

# As for `history`, DELETE is the only way, and only the owner has the privilege.
REFUSE_TRUNCATE = tuple(
    f"""
CREATE TRIGGER {table}_refuse_truncate BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_truncate()
"""
    for table in ("exclusion_log", "user_lifetimes", "rollout_events", "rollout_passes")
)

ROLLOUTS_ENROLLING = """
CREATE FUNCTION rollouts_enrolling(moment timestamptz)
RETURNS TABLE (
    segment_id bigint, expires_at timestamptz, actor text, api_key_id text, hash_limit numeric
)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT r.segment_id, r.expires_at, r.actor, r.api_key_id,
        stage.percent / 100 * 281474976710656
    FROM rollouts r
    JOIN segments s ON s.id = r.segment_id
    CROSS JOIN LATERAL (
        SELECT percent FROM rollout_stages
        WHERE rollout_stages.segment_id = r.segment_id
          AND starts_at <= coalesce(r.paused_at, moment)
        ORDER BY number DESC LIMIT 1
    ) AS stage
    WHERE r.enroll_new_users AND r.state IN ('ACTIVE', 'PAUSED', 'FAILED')
      AND NOT (r.state = 'FAILED' AND r.paused_at IS NOT NULL)  -- it failed while withdrawing
      AND (r.expires_at IS NULL OR r.expires_at > moment) AND s.deleted_at IS NULL;
END
"""


def upgrade() -> None:
    execute = op.get_bind().exec_driver_sql
    _lock_tables()
    for statement in (*COLUMNS, *HISTORY, RECORD_MEMBERSHIPS):
        execute(statement)
    for statement in (*EXCLUSION_LOG, *USER_LIFETIMES, *ROLLOUT_LOG, *REFUSE_TRUNCATE):
        execute(statement)
    execute(_make_history_partitions(hides_rows=False))
    execute("DROP FUNCTION rollouts_enrolling(timestamptz)")
    execute(ROLLOUTS_ENROLLING)
    execute(
        _enroll_new_users()
        .replace("cause, actor)", "cause, actor, api_key_id)")
        .replace("'ROLLOUT', r.actor\n", "'ROLLOUT', r.actor, r.api_key_id\n")
    )


def downgrade() -> None:
    execute = op.get_bind().exec_driver_sql
    _lock_tables()
    execute(_make_history_partitions(hides_rows=True))
    execute("DROP FUNCTION rollouts_enrolling(timestamptz)")
    execute(_of_migration("0002").ENROLL_NEW_USERS[0].replace("held_at", "paused_at"))
    execute(_enroll_new_users())
    execute("DROP TABLE rollout_passes, rollout_events")
    execute("DROP TYPE rollout_event")
    execute("DROP TRIGGER users_record_delete ON users")
    execute("DROP FUNCTION record_user_lifetimes()")
    execute("DROP TABLE user_lifetimes")
    execute("DROP TRIGGER exclusions_record_insert ON exclusions")
    execute("DROP TRIGGER exclusions_record_delete ON exclusions")
    execute("DROP FUNCTION record_exclusions()")
    execute("DROP TABLE exclusion_log")
    execute("DROP TYPE exclusion_operation")
    functions = _of_migration("0001").RECORD_MEMBERSHIPS
    function = functions[: functions.index("$$;")] + "$$"
    execute(function.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    execute("ALTER TABLE history DROP api_key_id, DROP import_id, DROP position")
    execute("ALTER TABLE rollouts DROP api_key_id")
    execute("ALTER TABLE exclusions DROP actor, DROP api_key_id, DROP import_id")
    execute("ALTER TABLE users DROP created_by, DROP created_by_api_key_id")
    execute("ALTER TABLE segments DROP created_by, DROP updated_by, DROP deleted_by_api_key_id")
    execute("ALTER TABLE memberships DROP api_key_id, DROP import_id")


def _lock_tables() -> None:
    op.get_bind().exec_driver_sql(
        WITH_LOCK_RETRIES.format(
            tables=LOCKED_TABLES, statement=f"LOCK TABLE {LOCKED_TABLES} IN ACCESS EXCLUSIVE MODE"
        )
    )


def _of_migration(number: str) -> ModuleType:
    return context.script.get_revision(number).module


def _make_history_partitions(*, hides_rows: bool) -> str:
    """Return the function of migration 0001, as a replacement of itself.

    A reader that waited for the lock on DEFAULT had planned without the new partition, so it did
    not see the moved rows (`hides_rows`). A reader that waits for `history` plans after the wait.
    """
    functions = _of_migration("0001").MAKE_HISTORY_PARTITIONS
    function = functions[: functions.index("$$;")] + "$$"
    if not hides_rows:
        create = "        EXECUTE format('CREATE TABLE"
        lock = """
        IF EXISTS (
            SELECT FROM public.history_default WHERE at >= lower_bound AND at < upper_bound
        ) THEN
            LOCK TABLE ONLY public.history IN ACCESS EXCLUSIVE MODE;
        END IF;
"""
        function = function.replace(create, lock[1:] + create)
    return function.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")


def _enroll_new_users() -> str:
    """Return the function of migration 0002, as a replacement of itself."""
    create = _of_migration("0002").ENROLL_NEW_USERS[1]
    return create.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
