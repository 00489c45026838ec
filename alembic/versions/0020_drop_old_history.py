"""The retention of history: months are dropped, except the joins that later times depend on.

`prune_history` sets the time at which history begins, and `drop_history_month` then drops a month
before it. Joins of memberships that were active at that time are kept: the partition of the month
is replaced by one with these joins only.
"""

from types import ModuleType

from alembic import context, op
from alembic.util import CommandError

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

TABLE = (
    """
CREATE TABLE dropped_history (
    "only" boolean DEFAULT true CONSTRAINT pk_dropped_history PRIMARY KEY,
    earliest_at timestamptz NOT NULL,
    dropped_position bigint NOT NULL,
    CONSTRAINT ck_dropped_history_only_row CHECK ("only")
)
""",
    "INSERT INTO dropped_history (earliest_at, dropped_position) VALUES ('-infinity', 0)",
)

# Raises an error if history before `earliest` may still change, because a leave is not recorded.
CHECK_HISTORY_IS_COMPLETE = """
CREATE FUNCTION check_history_is_complete(earliest timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM memberships WHERE expires_at < earliest) OR EXISTS (
        SELECT FROM segments WHERE deleted_at < earliest AND leaves_recorded_at IS NULL
    ) THEN
        RAISE EXCEPTION 'leaves before % are not recorded yet', earliest
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
END
$$
"""

# In one transaction: `earliest_at`, the deletion of rows that are no longer needed from the
# partitions of kept joins and from the DEFAULT partition, and one sum for all earlier hours. The
# lock of member_count_rollup keeps workers from adding to the sums meanwhile.
PRUNE_HISTORY = """
CREATE FUNCTION prune_history(earliest timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    this_month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    rolled_up bigint;
    partition name;
    rows bigint;
    last_position bigint;
    pruned bigint := 0;
BEGIN
    IF earliest AT TIME ZONE 'UTC' <> date_trunc('month', earliest AT TIME ZONE 'UTC')
        OR earliest AT TIME ZONE 'UTC' > this_month - interval '1 month'
    THEN
        RAISE EXCEPTION 'earliest must be the start of a month in UTC, and of the previous month '
            'at the latest, not %', earliest USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT position INTO rolled_up FROM member_count_rollup FOR NO KEY UPDATE;
    UPDATE dropped_history SET earliest_at = earliest WHERE earliest_at < earliest;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    PERFORM check_history_is_complete(earliest);

    FOR partition IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'public.history'::regclass
            AND (c.relname = 'history_default' OR c.relname LIKE 'history\\_kept\\_%')
        ORDER BY c.relname
    LOOP
        EXECUTE format(
            'WITH pruned AS ('
            '    DELETE FROM public.%I h WHERE h.at < $1 AND (h.operation = ''LEFT'' OR ('
            '        NOT EXISTS (SELECT FROM public.memberships m WHERE m.user_id = h.user_id'
            '            AND m.segment_id = h.segment_id AND m.id = h.membership_id)'
            '        AND NOT EXISTS (SELECT FROM public.history l WHERE l.user_id = h.user_id'
            '            AND l.segment_id = h.segment_id AND l.membership_id = h.membership_id'
            '            AND l.operation = ''LEFT'' AND l.at >= $1)))'
            '    RETURNING h.position'
            ') SELECT count(*), coalesce(max(position), 0) FROM pruned', partition)
        INTO rows, last_position USING earliest;
        IF last_position > rolled_up THEN
            RAISE EXCEPTION 'workers have not added history up to position % to the sums',
                last_position USING ERRCODE = 'object_not_in_prerequisite_state';
        END IF;
        UPDATE dropped_history SET dropped_position = last_position
        WHERE dropped_position < last_position;
        pruned := pruned + rows;
    END LOOP;

    WITH earlier AS (
        DELETE FROM member_count_hours WHERE hour < earliest RETURNING segment_id, joins, leaves
    )
    INSERT INTO member_count_hours (segment_id, hour, joins, leaves, has_seconds)
    SELECT segment_id, '-infinity', sum(joins), sum(leaves), false
    FROM earlier GROUP BY segment_id;
    DELETE FROM member_count_seconds WHERE second < earliest;
    RETURN pruned;
END
$$
"""

# The copy of the kept joins takes long, and only delays transactions that record an entry of the
# month itself. The exclusive lock follows. While this waits for it, all later readers and writers
# of history wait behind it, so an attempt waits for 50 ms at most.
#
# All of it is one transaction. If it is interrupted, nothing has changed.
#
# LOCK TABLE on the parent comes first: a statement that waits for it is planned after the wait,
# with the new partition.
DROP_HISTORY_MONTH = """
CREATE FUNCTION drop_history_month(first_day date) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    attempts CONSTANT integer := 12;
    month timestamp := date_trunc('month', first_day::timestamp);
    lower_bound timestamptz := month AT TIME ZONE 'UTC';
    upper_bound timestamptz := (month + interval '1 month') AT TIME ZONE 'UTC';
    old_partition text := 'history_' || to_char(month, 'YYYY_MM');
    kept_partition text := 'history_kept_' || to_char(month, 'YYYY_MM');
    limit_before text := current_setting('lock_timeout');
    earliest timestamptz;
    last_position bigint;
    kept bigint;
BEGIN
    SELECT earliest_at INTO earliest FROM dropped_history;
    IF upper_bound > earliest THEN
        RAISE EXCEPTION 'history begins at %, before the end of %', earliest, old_partition
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT pg_try_advisory_xact_lock(hashtextextended('drop_history_month', 0)) THEN
        RAISE EXCEPTION 'another session drops history' USING ERRCODE = 'lock_not_available';
    END IF;
    IF to_regclass('public.' || old_partition) IS NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE format('LOCK TABLE ONLY public.%I IN SHARE MODE', old_partition);
    PERFORM check_history_is_complete(earliest);
    EXECUTE format('SELECT coalesce(max(position), 0) FROM public.%I', old_partition)
        INTO last_position;
    IF last_position > (SELECT position FROM member_count_rollup) THEN
        RAISE EXCEPTION 'workers have not added history up to position % to the sums',
            last_position USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;

    EXECUTE format(
        'CREATE TABLE public.%I (LIKE public.history INCLUDING ALL, '
        'CONSTRAINT at_in_month CHECK (at >= %L AND at < %L))',
        kept_partition, lower_bound, upper_bound);
    EXECUTE format(
        'INSERT INTO public.%I SELECT * FROM public.%I '
        'WHERE operation = ''JOINED'' AND (user_id, segment_id, membership_id) IN ('
        '    SELECT user_id, segment_id, id FROM public.memberships '
        '    WHERE joined_at >= $1 AND joined_at < $2 '
        '    UNION ALL '
        '    SELECT user_id, segment_id, membership_id FROM public.history '
        '    WHERE operation = ''LEFT'' AND at >= $3)',
        kept_partition, old_partition) USING lower_bound, upper_bound, earliest;
    GET DIAGNOSTICS kept = ROW_COUNT;
    EXECUTE format(
        'CREATE TRIGGER %I BEFORE TRUNCATE ON public.%I '
        'FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_truncate()',
        kept_partition || '_refuse_truncate', kept_partition);

    FOR attempt IN 1 .. attempts LOOP
        BEGIN
            SET LOCAL lock_timeout = '50ms';
            LOCK TABLE ONLY public.history IN ACCESS EXCLUSIVE MODE;
            EXECUTE format('ALTER TABLE public.history DETACH PARTITION public.%I', old_partition);
            IF kept > 0 THEN
                EXECUTE format(
                    'ALTER TABLE public.history ATTACH PARTITION public.%I '
                    'FOR VALUES FROM (%L) TO (%L)', kept_partition, lower_bound, upper_bound);
                EXECUTE format(
                    'ALTER TABLE public.%I DROP CONSTRAINT at_in_month', kept_partition);
            ELSE
                EXECUTE format('DROP TABLE public.%I', kept_partition);
            END IF;
            EXECUTE format('DROP TABLE public.%I', old_partition);
            UPDATE dropped_history SET dropped_position = last_position
            WHERE dropped_position < last_position;
            PERFORM set_config('lock_timeout', limit_before, true);
            RETURN kept;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = attempts THEN
                RAISE;
            END IF;
        END;
        PERFORM pg_sleep(least(0.1 * 2 ^ (attempt - 1), 5));
    END LOOP;
END
$$
"""

REVOKE = (
    "REVOKE ALL ON FUNCTION check_history_is_complete(timestamptz) FROM PUBLIC",
    "REVOKE ALL ON FUNCTION prune_history(timestamptz) FROM PUBLIC",
    "REVOKE ALL ON FUNCTION drop_history_month(date) FROM PUBLIC",
)


def upgrade() -> None:
    functions = (CHECK_HISTORY_IS_COMPLETE, PRUNE_HISTORY, DROP_HISTORY_MONTH)
    for statement in (*TABLE, *functions, *REVOKE, _make_history_partitions(skips_dropped=True)):
        op.get_bind().exec_driver_sql(statement)


# A downgrade leaves the partitions of kept joins as they are. Months stay dropped. The lock waits
# for a transaction that drops history now.
def downgrade() -> None:
    execute = op.get_bind().exec_driver_sql
    execute("LOCK TABLE dropped_history IN ACCESS EXCLUSIVE MODE")
    earliest = execute(
        "SELECT earliest_at::text FROM dropped_history WHERE earliest_at > '-infinity'"
    ).scalar()
    if earliest:
        raise CommandError(
            f"history before {earliest} was dropped, and older versions do not know it: they would"
            " return too few members of earlier times, without an error; keep the migrations"
        )
    for statement in (
        _make_history_partitions(skips_dropped=False),
        "DROP FUNCTION drop_history_month(date)",
        "DROP FUNCTION prune_history(timestamptz)",
        "DROP FUNCTION check_history_is_complete(timestamptz)",
        "DROP TABLE dropped_history",
    ):
        execute(statement)


def _make_history_partitions(*, skips_dropped: bool) -> str:
    """Return the function of migration 0008, which then makes no month before `earliest_at`.

    Such a month may have a partition of kept joins. Its other rows are in the DEFAULT partition.
    """
    function: str = _of_migration("0008")._make_history_partitions(hides_rows=False)
    if skips_dropped:
        exists = "        CONTINUE WHEN to_regclass('public.' || partition) IS NOT NULL;\n"
        assert exists in function  # noqa: S101 - the function of migration 0001 never changes
        is_dropped = (
            "        CONTINUE WHEN upper_bound <= (SELECT earliest_at FROM dropped_history);\n"
        )
        function = function.replace(exists, exists + is_dropped)
    return function


def _of_migration(number: str) -> ModuleType:
    return context.script.get_revision(number).module
