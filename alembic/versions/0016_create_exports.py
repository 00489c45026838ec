"""Exports: lists of the members of a segment."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# The foreign key locks `segments`, so its writers wait until this transaction ends. It is short.
CREATE = (
    """
CREATE TABLE exports (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_exports PRIMARY KEY,
    segment_id bigint NOT NULL CONSTRAINT fk_exports_segment_id REFERENCES segments,
    status report_status NOT NULL,
    as_of timestamptz NOT NULL,
    cursor text NOT NULL,
    gzip boolean NOT NULL,
    actor text,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    failure text,
    row_count bigint,
    size_bytes bigint,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    object_key text,
    CONSTRAINT ck_exports_finished_when_over CHECK (
        (finished_at IS NOT NULL) = (status IN ('READY', 'FAILED'))),
    CONSTRAINT ck_exports_failure_when_failed CHECK ((failure IS NOT NULL) = (status = 'FAILED')),
    CONSTRAINT ck_exports_attempt_while_working CHECK (
        (next_attempt_at IS NOT NULL) = (status IN ('QUEUED', 'RUNNING')))
)
""",
    "CREATE INDEX ix_exports_segment_id_id ON exports (segment_id, id)",
    "CREATE INDEX ix_exports_created_at ON exports (created_at)",
    """
CREATE INDEX ix_exports_next_attempt_at ON exports (next_attempt_at)
    WHERE next_attempt_at IS NOT NULL
""",
)


def upgrade() -> None:
    for statement in CREATE:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP TABLE exports")
