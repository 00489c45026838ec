"""Objects of the store that workers delete: replaced files, and uploads without a reference."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# There are no foreign keys, because any feature stores objects. So this migration waits for no
# lock.
TABLE = """
CREATE TABLE objects_to_delete (
    object_key text NOT NULL,
    delete_after timestamptz NOT NULL,
    writable_until timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    CONSTRAINT pk_objects_to_delete PRIMARY KEY (object_key)
)
"""

INDEX = """
CREATE INDEX ix_objects_to_delete_next_attempt_at ON objects_to_delete (next_attempt_at)
"""


def upgrade() -> None:
    for statement in (TABLE, INDEX):
        op.get_bind().exec_driver_sql(statement)


# A downgrade forgets the objects that wait. The lifecycle of the bucket deletes them.
def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP TABLE objects_to_delete")
