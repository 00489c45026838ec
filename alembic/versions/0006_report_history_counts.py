"""Report the number of recorded joins and leaves to the writer, for the metrics."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# A connection with `client_min_messages = debug1` gets the message in the same round trip as the
# write. The log of a server with default settings does not have it.
# `segmentql.adapters.history_counters` reads it.
CREATE = (
    """
CREATE FUNCTION tell_of_history() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    entries record;
BEGIN
    FOR entries IN SELECT operation, cause, count(*) AS number FROM new_rows GROUP BY 1, 2 LOOP
        RAISE DEBUG 'segmentql recorded % % %', entries.operation, entries.cause, entries.number;
    END LOOP;
    RETURN NULL;
END
$$
""",
    """
CREATE TRIGGER history_tell AFTER INSERT ON history
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tell_of_history()
""",
)
DROP = ("DROP TRIGGER history_tell ON history", "DROP FUNCTION tell_of_history()")


def upgrade() -> None:
    for statement in CREATE:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    for statement in DROP:
        op.get_bind().exec_driver_sql(statement)
