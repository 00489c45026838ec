"""API keys: who may do what."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CREATE = (
    "CREATE TYPE key_role AS ENUM ('READER', 'EDITOR', 'ADMIN')",
    """
CREATE TABLE api_keys (
    number bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_api_keys PRIMARY KEY,
    public_id text COLLATE "C" NOT NULL CONSTRAINT uq_api_keys_public_id UNIQUE,
    name text NOT NULL,
    role key_role NOT NULL,
    secret_hash bytea NOT NULL,
    created_at timestamptz NOT NULL,
    created_by text,
    revoked_at timestamptz,
    revoked_by text,
    last_used_at timestamptz,
    CONSTRAINT ck_api_keys_public_id_form CHECK (public_id ~ '^[a-z0-9]{12}$'),
    CONSTRAINT ck_api_keys_name_length CHECK (length(name) BETWEEN 1 AND 255),
    CONSTRAINT ck_api_keys_secret_hash_length CHECK (length(secret_hash) = 32)
)
""",
)


def upgrade() -> None:
    for statement in CREATE:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    for statement in ("DROP TABLE api_keys", "DROP TYPE key_role"):
        op.get_bind().exec_driver_sql(statement)
