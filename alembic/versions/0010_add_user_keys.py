"""Add the keys of users, the sequence of their ids, and reports with keys.

This migration only adds, so that processes of the previous version continue to work. If it is
interrupted, it continues where it was.
"""

from alembic import context, op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# A key has no control characters (the Unicode category Cc). The CHECK is added NOT VALID, because
# no row has a key yet, and validated without blocking writes.
#
# The ids of users that are stored by a key come from a sequence that starts far above the ids that
# `createUser` allocates.
COLUMNS = (
    'ALTER TABLE users ADD COLUMN IF NOT EXISTS key text COLLATE "C"',
    "ALTER TABLE users DROP CONSTRAINT IF EXISTS ck_users_key_form",
    r"""
ALTER TABLE users ADD CONSTRAINT ck_users_key_form CHECK (
    length(key) BETWEEN 1 AND 255 AND key !~ '[\u0001-\u001f\u007f-\u009f]') NOT VALID
""",
    "ALTER TABLE users VALIDATE CONSTRAINT ck_users_key_form",
    "CREATE SEQUENCE IF NOT EXISTS user_key_id_seq START 100000000000000 OWNED BY users.key",
    'ALTER TABLE user_lifetimes ADD COLUMN IF NOT EXISTS key text COLLATE "C"',
    "ALTER TABLE reports ADD COLUMN IF NOT EXISTS with_keys boolean NOT NULL DEFAULT false",
    "ALTER TABLE reports ADD COLUMN IF NOT EXISTS remade_at timestamptz",
)

# Returns an id that was never stored. Another transaction may store it before the caller does, so
# the caller inserts it with ON CONFLICT and repeats. A number that was taken is not taken again,
# even if the transaction is rolled back.
NEXT_ID_FOR_KEY = """
CREATE OR REPLACE FUNCTION next_id_for_key() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    next_id bigint;
BEGIN
    LOOP
        next_id := nextval('user_key_id_seq');
        EXIT WHEN NOT EXISTS (SELECT FROM users WHERE id = next_id)
            AND NOT EXISTS (SELECT FROM deleted_users WHERE id = next_id);
    END LOOP;
    RETURN next_id;
END
$$
"""

INDEXES = {
    "uq_users_key": "UNIQUE INDEX CONCURRENTLY uq_users_key ON users (key) WHERE key IS NOT NULL",
    # for the deletion of a key from the lifetimes of deleted users
    "ix_user_lifetimes_key": "INDEX CONCURRENTLY ix_user_lifetimes_key ON user_lifetimes (key)"
    " WHERE key IS NOT NULL",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        execute = op.get_bind().exec_driver_sql
        for statement in COLUMNS:
            _execute_exclusively(statement)
        execute(NEXT_ID_FOR_KEY)
        execute(_record_user_lifetimes(with_key=True))
        limit = execute("SHOW lock_timeout").scalar_one()
        execute("SET lock_timeout = 0")  # it waits for older transactions, and blocks none
        for name, definition in INDEXES.items():
            execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")  # of an interrupted migration
            execute(f"CREATE {definition}")
        execute(f"SET lock_timeout = '{limit}'")  # for the next migration


def _execute_exclusively(statement: str) -> None:
    """Execute a statement without a long wait for its lock, which would block other clients."""
    if not statement.lstrip().startswith("ALTER TABLE"):
        op.get_bind().exec_driver_sql(statement)
        return
    attempts: str = context.script.get_revision("0008").module.WITH_LOCK_RETRIES
    table = statement.split()[2]
    op.get_bind().exec_driver_sql(attempts.format(tables=table, statement=statement))


def downgrade() -> None:
    execute = op.get_bind().exec_driver_sql
    execute(_record_user_lifetimes(with_key=False))
    execute("DROP FUNCTION next_id_for_key()")
    execute("ALTER TABLE reports DROP with_keys, DROP remade_at")
    execute("ALTER TABLE user_lifetimes DROP key")
    execute("ALTER TABLE users DROP key")


def _record_user_lifetimes(*, with_key: bool) -> str:
    """Return the trigger's function of migration 0008, as a replacement of itself."""
    migration = context.script.get_revision("0008").module
    (function,) = (part for part in migration.USER_LIFETIMES if "CREATE FUNCTION" in part)
    function = function.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
    if with_key:
        function = function.replace("created_by_api_key_id,", "created_by_api_key_id, key,")
    return function
