"""Reports: what was asked for, and how far it is."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CREATE = (
    "CREATE TYPE report_status AS ENUM ('QUEUED', 'RUNNING', 'READY', 'FAILED')",
    """
CREATE TABLE reports (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_reports PRIMARY KEY,
    user_id bigint,
    year integer NOT NULL,
    month integer NOT NULL,
    status report_status NOT NULL,
    row_count bigint,
    size_bytes bigint,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    failure text,
    tries integer NOT NULL DEFAULT 0,
    object_key text,
    touched_at timestamptz NOT NULL,
    actor text,
    CONSTRAINT ck_reports_month_range CHECK (month BETWEEN 1 AND 12),
    CONSTRAINT ck_reports_finished_when_over CHECK (
        (finished_at IS NOT NULL) = (status IN ('READY', 'FAILED'))),
    CONSTRAINT ck_reports_failure_when_failed CHECK ((failure IS NOT NULL) = (status = 'FAILED'))
)
""",
    "CREATE INDEX ix_reports_user_id_id ON reports (user_id, id)",
    "CREATE INDEX ix_reports_created_at ON reports (created_at)",
    """
CREATE INDEX ix_reports_unfinished ON reports (touched_at)
    WHERE status IN ('QUEUED', 'RUNNING')
""",
)


def upgrade() -> None:
    for statement in CREATE:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    for statement in ("DROP TABLE reports", "DROP TYPE report_status"):
        op.get_bind().exec_driver_sql(statement)
