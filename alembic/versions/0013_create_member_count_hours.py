"""Sums of the joins and leaves of segments by hour or second, for counts of members in the past."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# Workers add the history up to a position to the sums, and store the position in the same
# transaction. Queries add the later history.
TABLES = (
    """
CREATE TABLE member_count_hours (
    segment_id bigint NOT NULL,
    hour timestamptz NOT NULL,
    joins bigint NOT NULL,
    leaves bigint NOT NULL,
    has_seconds boolean NOT NULL,
    CONSTRAINT pk_member_count_hours PRIMARY KEY (segment_id, hour)
)
""",
    """
CREATE TABLE member_count_seconds (
    segment_id bigint NOT NULL,
    second timestamptz NOT NULL,
    joins bigint NOT NULL,
    leaves bigint NOT NULL,
    CONSTRAINT pk_member_count_seconds PRIMARY KEY (segment_id, second)
)
""",
    """
CREATE TABLE member_count_rollup (
    "only" boolean DEFAULT true CONSTRAINT pk_member_count_rollup PRIMARY KEY,
    position bigint NOT NULL,
    CONSTRAINT ck_member_count_rollup_only_row CHECK ("only")
)
""",
    "INSERT INTO member_count_rollup (position) VALUES (0)",
)

# A dropped partition of history takes joins with it. Their memberships are still active, or their
# leaves are in later partitions. These joins count from the beginning of time.
COUNT_MISSING_JOINS = """
INSERT INTO member_count_hours (segment_id, hour, joins, leaves, has_seconds)
SELECT segment_id, '-infinity', count(*), 0, false
FROM (
    SELECT segment_id, id FROM memberships
    UNION ALL
    SELECT segment_id, membership_id FROM history WHERE operation = 'LEFT'
) AS joined
WHERE NOT EXISTS (
    SELECT FROM history h WHERE h.membership_id = joined.id AND h.operation = 'JOINED')
GROUP BY segment_id
"""


def upgrade() -> None:
    for statement in (*TABLES, COUNT_MISSING_JOINS):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        "DROP TABLE member_count_rollup, member_count_seconds, member_count_hours"
    )
