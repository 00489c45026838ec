"""Idempotency keys: the results of mutations that clients may repeat."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# The table is not partitioned: a unique index over partitions includes the partition key, so that a
# mutation could run twice around midnight. The key is the first column of the unique index, because
# the API key is null if authentication is off.
CREATE = (
    """
CREATE TABLE idempotency_keys (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_idempotency_keys PRIMARY KEY,
    api_key_id text COLLATE "C",
    key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    result jsonb,
    created_at timestamptz NOT NULL,
    CONSTRAINT uq_idempotency_keys_key UNIQUE NULLS NOT DISTINCT (key, api_key_id),
    CONSTRAINT ck_idempotency_keys_key_length CHECK (length(key) BETWEEN 1 AND 255),
    CONSTRAINT ck_idempotency_keys_fingerprint_length CHECK (length(fingerprint) = 32)
)
""",
    "CREATE INDEX ix_idempotency_keys_created_at ON idempotency_keys (created_at)",
)


def upgrade() -> None:
    for statement in CREATE:
        op.get_bind().exec_driver_sql(statement)


# A downgrade forgets the results, so that a repeated mutation is executed again.
def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP TABLE idempotency_keys")
