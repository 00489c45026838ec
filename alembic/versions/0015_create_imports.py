"""Imports: lists of users that are read into a segment."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# The foreign key locks `segments`, so its writers wait until this transaction ends. It is short.
TYPES = (
    """
CREATE TYPE import_status AS ENUM ('AWAITING_UPLOAD', 'QUEUED', 'VALIDATING', 'VALIDATED', 'HELD',
    'APPLYING', 'COMPLETED', 'REFUSED', 'FAILED', 'CANCELLED')
""",
    """
CREATE TYPE row_outcome AS ENUM ('HEADER', 'BLANK', 'JOINED', 'END_CHANGED', 'ALREADY_IN', 'LEFT',
    'NOT_IN', 'DUPLICATE', 'EXCLUDED', 'UNKNOWN_USER', 'MALFORMED', 'OUT_OF_RANGE', 'NOT_REACHED')
""",
)

TABLES = (
    """
CREATE TABLE imports (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_imports PRIMARY KEY,
    segment_id bigint NOT NULL CONSTRAINT fk_imports_segment_id REFERENCES segments,
    status import_status NOT NULL,
    mode text NOT NULL,
    options jsonb NOT NULL,
    source jsonb NOT NULL,
    actor text,
    api_key_id text,
    created_at timestamptz NOT NULL,
    queued_at timestamptz,
    finished_at timestamptz,
    deadline_at timestamptz,
    failure text,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    upload_key text,
    file_key text,
    result_key text,
    filtered_keys jsonb NOT NULL DEFAULT '{}',
    row_count bigint,
    listed_users bigint NOT NULL DEFAULT 0,
    total_users bigint NOT NULL DEFAULT 0,
    applied_users bigint NOT NULL DEFAULT 0,
    removals bigint,
    removed_users bigint NOT NULL DEFAULT 0,
    allowed_removals bigint,
    counts jsonb NOT NULL DEFAULT '{}',
    rejections jsonb NOT NULL DEFAULT '[]',
    has_staged_rows boolean NOT NULL DEFAULT true,
    rows_version integer NOT NULL DEFAULT 0,
    needs_cleanup boolean NOT NULL DEFAULT true,
    cleanup_after timestamptz,
    CONSTRAINT ck_imports_mode_known CHECK (mode IN ('ADD', 'REMOVE', 'REPLACE')),
    CONSTRAINT ck_imports_finished_when_over CHECK (
        (finished_at IS NOT NULL) = (status IN ('COMPLETED', 'REFUSED', 'FAILED', 'CANCELLED'))),
    CONSTRAINT ck_imports_deadline_while_waiting CHECK (
        (deadline_at IS NOT NULL) = (status IN ('AWAITING_UPLOAD', 'VALIDATED', 'HELD'))),
    CONSTRAINT ck_imports_attempt_while_working CHECK (
        (next_attempt_at IS NOT NULL) = (status IN ('QUEUED', 'VALIDATING', 'APPLYING')))
)
""",
    "CREATE INDEX ix_imports_segment_id_id ON imports (segment_id, id)",
    """
CREATE INDEX ix_imports_with_result ON imports (finished_at) WHERE result_key IS NOT NULL
""",
    """
CREATE INDEX ix_imports_next_attempt_at ON imports (next_attempt_at)
    WHERE next_attempt_at IS NOT NULL
""",
    "CREATE INDEX ix_imports_deadline_at ON imports (deadline_at) WHERE deadline_at IS NOT NULL",
    """
CREATE INDEX ix_imports_to_clean_up ON imports (id)
    WHERE needs_cleanup AND finished_at IS NOT NULL
""",
    # The staged rows are logged, because the rows of an unlogged table are gone after a crash. They
    # have no foreign key: its check of each row would take half of the time of reading a list, and
    # imports are never deleted.
    """
CREATE TABLE import_rows (
    import_id bigint NOT NULL,
    line bigint NOT NULL,
    value text,
    user_id bigint,
    user_key text COLLATE "C",
    outcome row_outcome,
    detail text,
    CONSTRAINT pk_import_rows PRIMARY KEY (import_id, line)
)
""",
    """
CREATE TABLE import_users (
    import_id bigint NOT NULL,
    number bigint NOT NULL,
    line bigint,
    user_id bigint,
    user_key text COLLATE "C",
    membership_id bigint,
    membership_updated_at timestamptz,
    outcome row_outcome NOT NULL,
    CONSTRAINT pk_import_users PRIMARY KEY (import_id, number)
)
""",
    # For the erasure of keys. Rows that name a user by id are in none of these indexes.
    """
CREATE INDEX ix_import_rows_user_key ON import_rows (user_key) WHERE user_key IS NOT NULL
""",
    """
CREATE INDEX ix_import_rows_other_values ON import_rows (import_id)
    WHERE user_id IS NULL AND user_key IS NULL AND value <> ''
""",
    """
CREATE INDEX ix_import_users_user_key ON import_users (user_key) WHERE user_key IS NOT NULL
""",
)


def upgrade() -> None:
    for statement in (*TYPES, *TABLES):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    for statement in (
        "DROP TABLE import_users, import_rows, imports",
        "DROP TYPE row_outcome",
        "DROP TYPE import_status",
    ):
        op.get_bind().exec_driver_sql(statement)
