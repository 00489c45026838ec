"""Add the cause to the index of a segment's members, so that it alone finds a rollout's members."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NAME = "ix_memberships_segment_id_user_id"


def upgrade() -> None:
    _rebuild("expires_at, cause")


def downgrade() -> None:
    _rebuild("expires_at")


def _rebuild(included: str) -> None:
    """Build a new index beside the old one without blocking writes. It is safe to repeat."""
    with op.get_context().autocommit_block():
        limit = op.get_bind().exec_driver_sql("SHOW lock_timeout").scalar_one()
        for statement in (
            "SET lock_timeout = 0",  # it waits for older transactions, and blocks none
            f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}_new",
            f"CREATE INDEX CONCURRENTLY {NAME}_new ON memberships (segment_id, user_id)"
            f" INCLUDE ({included})",
            f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}",
            f"ALTER INDEX {NAME}_new RENAME TO {NAME}",
            f"SET lock_timeout = '{limit}'",  # for the next migration
        ):
            op.get_bind().exec_driver_sql(statement)
