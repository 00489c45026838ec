"""Number the history that existed before migration 0008, and index the positions.

Readers and writers continue meanwhile. If this migration is interrupted, it continues where it was.
"""

from alembic import context, op
from sqlalchemy.exc import DBAPIError

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Numbers the entries in order of time, user, and leaves before joins, 20,000 in one transaction.
# The numbers are below the sequence of migration 0008, which starts at 1,000,000,000,000.
#
# The advisory lock is the one of `make_history_partitions`, which moves rows to other partitions.
# That function waits for locks on `history`. So no transaction has such a lock when it waits for
# the advisory lock.
#
# Nested loops read only the chunk by the primary key; the other joins would read the whole table.
# The time and the user of the last numbered entry are the start of the next index scan.
NUMBER_HISTORY = """
DO $$
DECLARE
    chunk_rows CONSTANT integer := 20000;
    numbered bigint;
    last_position bigint;
    last_at timestamptz := '-infinity';
    last_user_id bigint := 0;
BEGIN
    last_position := coalesce(
        (SELECT max(position) FROM history WHERE position < 1000000000000), 0);
    COMMIT;
    LOOP
        SET LOCAL enable_hashjoin = off;
        SET LOCAL enable_mergejoin = off;
        PERFORM pg_advisory_xact_lock(hashtextextended('make_history_partitions', 0));
        WITH chunk AS MATERIALIZED (
            SELECT at, user_id, operation, segment_id,
                row_number() OVER (ORDER BY at, user_id, operation, segment_id) AS number
            FROM (
                SELECT at, user_id, operation, segment_id FROM history
                WHERE (at, user_id) >= (last_at, last_user_id) AND position IS NULL
                ORDER BY at, user_id FETCH FIRST (chunk_rows) ROWS WITH TIES
            ) AS next_rows
        ), updated AS (
            UPDATE history h SET position = last_position + chunk.number
            FROM chunk
            WHERE h.at = chunk.at AND h.user_id = chunk.user_id
                AND h.operation = chunk.operation AND h.segment_id = chunk.segment_id
            RETURNING 1
        ), last_row AS (
            SELECT at, user_id FROM chunk ORDER BY number DESC LIMIT 1
        )
        SELECT (SELECT count(*) FROM updated), last_row.at, last_row.user_id
        INTO numbered, last_at, last_user_id FROM last_row;
        COMMIT;
        EXIT WHEN numbered IS NULL;
        last_position := last_position + numbered;
    END LOOP;
END
$$
"""

# The database proves NOT NULL from a validated CHECK, so the exclusive locks are short. VALIDATE
# reads the whole table, and blocks no reader and no writer.
NOT_NULL = (
    """
ALTER TABLE history DROP CONSTRAINT IF EXISTS ck_history_position_set,
    ADD CONSTRAINT ck_history_position_set CHECK (position IS NOT NULL) NOT VALID
""",
    "ALTER TABLE history VALIDATE CONSTRAINT ck_history_position_set",
    # One statement would drop the CHECK before it is the proof.
    """
ALTER TABLE history ALTER position SET NOT NULL;
ALTER TABLE history DROP CONSTRAINT ck_history_position_set
""",
)

PARTITIONS_WITHOUT_INDEX = """
SELECT inhrelid::regclass::text FROM pg_inherits
WHERE inhparent = 'history'::regclass AND NOT EXISTS (
    SELECT FROM pg_inherits attached JOIN pg_index ON indexrelid = attached.inhrelid
    WHERE attached.inhparent = 'ix_history_position'::regclass
        AND indrelid = pg_inherits.inhrelid)
ORDER BY 1
"""

MAX_INDEX_ATTEMPTS = 5

# Logs the exclusions that existed before migration 0008, 20,000 in one transaction. The row locks
# make an admission wait for the entry of its exclusion, so that the entries are in order. A locked
# row is being deleted. If that transaction is rolled back, the next round logs the row.
LOG_EXISTING_EXCLUSIONS = """
DO $$
DECLARE
    last_user_id bigint := 0;
    last_segment_id bigint := 0;
BEGIN
    LOOP
        WITH chunk AS MATERIALIZED (
            SELECT user_id, segment_id, excluded_at FROM exclusions e
            WHERE (user_id, segment_id) > (last_user_id, last_segment_id) AND NOT EXISTS (
                SELECT FROM exclusion_log l
                WHERE l.user_id = e.user_id AND l.segment_id = e.segment_id)
            ORDER BY user_id, segment_id LIMIT 20000
            FOR KEY SHARE OF e SKIP LOCKED
        ), logged AS (
            INSERT INTO exclusion_log (user_id, segment_id, at, operation)
            SELECT user_id, segment_id, excluded_at, 'EXCLUDED' FROM chunk
            ORDER BY user_id, segment_id
        )
        SELECT user_id, segment_id INTO last_user_id, last_segment_id FROM chunk
        ORDER BY user_id DESC, segment_id DESC LIMIT 1;
        COMMIT;
        IF last_user_id IS NULL THEN
            EXIT WHEN NOT EXISTS (
                SELECT FROM exclusions e WHERE NOT EXISTS (
                    SELECT FROM exclusion_log l
                    WHERE l.user_id = e.user_id AND l.segment_id = e.segment_id));
            last_user_id := 0;
            last_segment_id := 0;
            PERFORM pg_sleep(0.1);
        END IF;
    END LOOP;
END
$$
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        execute = op.get_bind().exec_driver_sql
        execute(LOG_EXISTING_EXCLUSIONS)
        execute(NUMBER_HISTORY)
        add_check, validate_check, set_not_null = NOT_NULL
        _execute_exclusively("history", add_check)
        execute(validate_check)
        _execute_exclusively("history", set_not_null)
        _execute_exclusively(
            "history", "CREATE INDEX IF NOT EXISTS ix_history_position ON ONLY history (position)"
        )
        for partition in execute(PARTITIONS_WITHOUT_INDEX).scalars().all():
            index = f"{partition}_position_idx"
            _create_index_concurrently(index, partition)
            _execute_exclusively(
                partition, f"ALTER INDEX ix_history_position ATTACH PARTITION {index}"
            )


def _execute_exclusively(table: str, statement: str) -> None:
    attempts: str = context.script.get_revision("0008").module.WITH_LOCK_RETRIES
    op.get_bind().exec_driver_sql(attempts.format(tables=table, statement=statement))


def _create_index_concurrently(index: str, partition: str) -> None:
    """Create the index without a limit of its wait for older transactions, because it blocks none.

    `make_history_partitions` waits for this index on the DEFAULT partition, and this may wait for
    that transaction. PostgreSQL then aborts one of both.
    """
    execute = op.get_bind().exec_driver_sql
    limit = execute("SHOW lock_timeout").scalar_one()
    execute("SET lock_timeout = 0")
    for attempt in range(1, MAX_INDEX_ATTEMPTS + 1):
        try:
            execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")  # of an interrupted attempt
            execute(f"CREATE INDEX CONCURRENTLY {index} ON {partition} (position)")
            break
        except DBAPIError as error:
            is_deadlock = getattr(error.orig, "sqlstate", None) == "40P01"
            if not is_deadlock or attempt == MAX_INDEX_ATTEMPTS:
                raise
    execute(f"SET lock_timeout = '{limit}'")


def downgrade() -> None:
    execute = op.get_bind().exec_driver_sql
    execute("DROP INDEX ix_history_position")
    execute("ALTER TABLE history ALTER position DROP NOT NULL")
