"""Rename columns, a table, indexes and a trigger to the usual terms."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# PostgreSQL updates functions with an SQL body (BEGIN ATOMIC). No PL/pgSQL function uses them.
COLUMNS = (
    ("users", "arrival", "insert_seq"),
    ("segments", "tidied_at", "leaves_recorded_at"),
    ("rollouts", "held_at", "paused_at"),
    ("rollouts", "reach", "max_percent"),
    ("rollouts", "takes_out", "removes_members"),
    ("rollouts", "last_arrival", "last_insert_seq"),
    ("rollouts", "touched_at", "heartbeat_at"),
    ("reports", "tries", "attempts"),
    ("reports", "touched_at", "next_attempt_at"),
)
CONSTRAINTS = (
    ("segments", "ck_segments_tidied_when_deleted", "ck_segments_leaves_recorded_when_deleted"),
    ("rollouts", "ck_rollouts_held_when_stopped", "ck_rollouts_paused_when_stopped"),
    ("id_allocator", "pk_last_pick", "pk_id_allocator"),
    ("id_allocator", "ck_last_pick_only_row", "ck_id_allocator_only_row"),
)
# While a report is made, this column now has the end of the worker's lease instead of its last
# heartbeat. The lease lasts 12 seconds.
LEASE = "UPDATE reports SET next_attempt_at = next_attempt_at {} interval '12 s'"
RUNNING = " WHERE status = 'RUNNING'"


def upgrade() -> None:
    execute = op.get_bind().exec_driver_sql
    execute("ALTER TABLE last_pick RENAME TO id_allocator")
    for table, old, new in COLUMNS:
        execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
    for table, old, new in CONSTRAINTS:
        execute(f"ALTER TABLE {table} RENAME CONSTRAINT {old} TO {new}")
    execute("ALTER INDEX ix_segments_untidied RENAME TO ix_segments_unrecorded")
    execute("ALTER SEQUENCE users_arrival_seq RENAME TO users_insert_seq")
    execute("ALTER TRIGGER history_tell ON history RENAME TO history_report_counts")
    execute("ALTER FUNCTION tell_of_history() RENAME TO report_history_counts")
    execute(LEASE.format("+") + RUNNING)


def downgrade() -> None:
    execute = op.get_bind().exec_driver_sql
    execute(LEASE.format("-") + RUNNING)
    execute("ALTER FUNCTION report_history_counts() RENAME TO tell_of_history")
    execute("ALTER TRIGGER history_report_counts ON history RENAME TO history_tell")
    execute("ALTER SEQUENCE users_insert_seq RENAME TO users_arrival_seq")
    execute("ALTER INDEX ix_segments_unrecorded RENAME TO ix_segments_untidied")
    for table, old, new in CONSTRAINTS:
        execute(f"ALTER TABLE {table} RENAME CONSTRAINT {new} TO {old}")
    for table, old, new in reversed(COLUMNS):
        execute(f"ALTER TABLE {table} RENAME COLUMN {new} TO {old}")
    execute("ALTER TABLE id_allocator RENAME TO last_pick")
