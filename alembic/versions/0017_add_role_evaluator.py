"""The role EVALUATOR of API keys, below READER."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

ADD = "ALTER TYPE key_role ADD VALUE 'EVALUATOR' BEFORE 'READER'"

# PostgreSQL cannot remove a value of a type. An older version has no role below READER, so the keys
# are revoked: they must not become able to read.
REMOVE = (
    """
UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE role = 'EVALUATOR'
""",
    "ALTER TYPE key_role RENAME TO key_role_with_evaluator",
    "CREATE TYPE key_role AS ENUM ('READER', 'EDITOR', 'ADMIN')",
    """
ALTER TABLE api_keys ALTER COLUMN role TYPE key_role
    USING CAST(CASE role WHEN 'EVALUATOR' THEN 'READER' ELSE CAST(role AS text) END AS key_role)
""",
    "DROP TYPE key_role_with_evaluator",
)


def upgrade() -> None:
    op.get_bind().exec_driver_sql(ADD)


def downgrade() -> None:
    for statement in REMOVE:
        op.get_bind().exec_driver_sql(statement)
