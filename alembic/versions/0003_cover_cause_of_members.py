"""The cause in the index of a segment's members: whom its rollout brought in, from it alone."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NAME = "ix_memberships_segment_id_user_id"


def upgrade() -> None:
    _make_anew("expires_at, cause")


def downgrade() -> None:
    _make_anew("expires_at")


def _make_anew(included: str) -> None:
    """Make the index beside the old one, while everybody reads and writes; safe to run again."""
    with op.get_context().autocommit_block():
        limit = op.get_bind().exec_driver_sql("SHOW lock_timeout").scalar_one()
        for statement in (
            "SET lock_timeout = 0",  # it waits for those who were there before, and holds up none
            f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}_new",
            f"CREATE INDEX CONCURRENTLY {NAME}_new ON memberships (segment_id, user_id)"
            f" INCLUDE ({included})",
            f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}",
            f"ALTER INDEX {NAME}_new RENAME TO {NAME}",
            f"SET lock_timeout = '{limit}'",  # the next migration's
        ):
            op.get_bind().exec_driver_sql(statement)
