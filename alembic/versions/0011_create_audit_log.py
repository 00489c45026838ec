"""The audit log: who changed segments, rollouts and API keys, and who requested reports."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# There are no foreign keys, as in history, so this migration waits for no lock.
#
# The time has a default, and the service's role may not insert a value into the column. So the time
# of an entry is always the time at which the database stored it.
TABLE = """
CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text,
    api_key_id text,
    request_id text,
    action text NOT NULL,
    target text NOT NULL,
    segment_id bigint,
    before jsonb,
    after jsonb,
    CONSTRAINT pk_audit_log PRIMARY KEY (id),
    CONSTRAINT ck_audit_log_before_object CHECK (jsonb_typeof(before) = 'object'),
    CONSTRAINT ck_audit_log_after_object CHECK (jsonb_typeof(after) = 'object')
)
"""

# One index for each filter, in the order of the list. EDITOR sees only entries of segments, and its
# queries must not read past the others.
INDEXES = (
    "CREATE INDEX ix_audit_log_at_id ON audit_log (at, id)",
    "CREATE INDEX ix_audit_log_actor_at_id ON audit_log (actor, at, id)",
    "CREATE INDEX ix_audit_log_segment_id_at_id ON audit_log (segment_id, at, id)",
    """
CREATE INDEX ix_audit_log_of_segments ON audit_log (at, id) WHERE segment_id IS NOT NULL
""",
    """
CREATE INDEX ix_audit_log_actor_of_segments ON audit_log (actor, at, id)
    WHERE segment_id IS NOT NULL
""",
)

REFUSE_TRUNCATE = """
CREATE TRIGGER audit_log_refuse_truncate BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_truncate()
"""


def upgrade() -> None:
    execute = op.get_bind().exec_driver_sql
    for statement in (TABLE, *INDEXES, REFUSE_TRUNCATE):
        execute(statement)


def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP TABLE audit_log")
