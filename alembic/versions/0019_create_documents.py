"""Trusted documents, which clients name by the hash of their text."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

CREATE = """
CREATE TABLE documents (
    id bytea CONSTRAINT pk_documents PRIMARY KEY,
    text text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    created_by text,
    CONSTRAINT ck_documents_id_is_hash CHECK (id = sha256(convert_to(text, 'UTF8')))
)
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(CREATE)


# A downgrade forgets the documents. Push the manifests again after the next upgrade.
def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP TABLE documents")
