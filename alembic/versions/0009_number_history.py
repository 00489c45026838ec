"""Number the history that existed before migration 0008, and index the positions.

Readers and writers continue meanwhile. If this migration is interrupted, it continues where it was.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Numbers the entries in order of time, user, and leaves before joins, 20,000 in one transaction.
# The numbers are below the sequence of migration 0008, which starts at 1,000,000,000,000.
#
# The advisory lock is the one of `make_history_partitions`, which moves rows to other partitions.
# Nested loops read only the chunk by the primary key; the other joins would read the whole table.
# The time and the user of the last numbered entry are the start of the next index scan.
NUMBER_HISTORY = """
DO $$
DECLARE
    chunk_rows CONSTANT integer := 20000;
    numbered bigint;
    last_position bigint := coalesce(
        (SELECT max(position) FROM history WHERE position < 1000000000000), 0);
    last_at timestamptz := '-infinity';
    last_user_id bigint := 0;
BEGIN
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

# The database proves NOT NULL from a validated CHECK, so the exclusive locks are short.
SET_NOT_NULL = (
    "ALTER TABLE history DROP CONSTRAINT IF EXISTS ck_history_position_set",
    """
ALTER TABLE history
    ADD CONSTRAINT ck_history_position_set CHECK (position IS NOT NULL) NOT VALID
""",
    "ALTER TABLE history VALIDATE CONSTRAINT ck_history_position_set",
    "ALTER TABLE history ALTER position SET NOT NULL",
    "ALTER TABLE history DROP CONSTRAINT ck_history_position_set",
)

PARTITIONS_WITHOUT_INDEX = """
SELECT inhrelid::regclass::text FROM pg_inherits
WHERE inhparent = 'history'::regclass AND NOT EXISTS (
    SELECT FROM pg_inherits attached JOIN pg_index ON indexrelid = attached.inhrelid
    WHERE attached.inhparent = 'ix_history_position'::regclass
        AND indrelid = pg_inherits.inhrelid)
ORDER BY 1
"""

LOG_EXISTING_EXCLUSIONS = """
INSERT INTO exclusion_log (user_id, segment_id, at, operation)
SELECT user_id, segment_id, excluded_at, 'EXCLUDED' FROM exclusions e
WHERE NOT EXISTS (
    SELECT FROM exclusion_log l WHERE l.user_id = e.user_id AND l.segment_id = e.segment_id)
ORDER BY user_id, segment_id
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        execute = op.get_bind().exec_driver_sql
        execute(LOG_EXISTING_EXCLUSIONS)
        execute(NUMBER_HISTORY)
        for statement in SET_NOT_NULL:
            execute(statement)
        execute("CREATE INDEX IF NOT EXISTS ix_history_position ON ONLY history (position)")
        limit = execute("SHOW lock_timeout").scalar_one()
        execute("SET lock_timeout = 0")  # it waits for older transactions, and blocks none
        for partition in execute(PARTITIONS_WITHOUT_INDEX).scalars().all():
            index = f"{partition}_position_idx"
            execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")  # of an interrupted migration
            execute(f"CREATE INDEX CONCURRENTLY {index} ON {partition} (position)")
            execute(f"ALTER INDEX ix_history_position ATTACH PARTITION {index}")
        execute(f"SET lock_timeout = '{limit}'")  # for the next migration


def downgrade() -> None:
    execute = op.get_bind().exec_driver_sql
    execute("DROP INDEX ix_history_position")
    execute("ALTER TABLE history ALTER position DROP NOT NULL")
