"""Store the oldest revision whose code works on the schema."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None
oldest_compatible = "0020"

# env.py inserts the row with `oldest_compatible`, and replaces it after each later migration.
CREATE = """
CREATE TABLE schema_compatibility (
    "only" boolean DEFAULT true CONSTRAINT pk_schema_compatibility PRIMARY KEY,
    oldest_revision text NOT NULL,
    CONSTRAINT ck_schema_compatibility_only_row CHECK ("only")
)
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(CREATE)


def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP TABLE schema_compatibility")
