"""Index segments for the search in slugs and names, and for lists with deleted segments.

Readers and writers continue meanwhile. If this migration is interrupted, it continues where it was.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# The index has the three characters that follow each position of the slug and of the name, or fewer
# at the end. So a text of up to three characters is the beginning of an indexed one, and a longer
# text has its own trigrams. The case is folded by rules that are the same in every database.
#
# The high cost makes the planner prefer the index to calling the function for each row.
FUNCTIONS = (
    """
CREATE OR REPLACE FUNCTION segment_search_vector(slug text, name text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000
BEGIN ATOMIC
    SELECT array_to_tsvector(ARRAY(
        SELECT DISTINCT substr(folded, position, 3)
        FROM unnest(ARRAY[
                casefold(slug COLLATE pg_unicode_fast), casefold(name COLLATE pg_unicode_fast)
            ]) AS texts (folded),
            generate_series(1, length(folded)) AS position
    ));
END
""",
    # Quotes and backslashes are doubled, so every character of the search is literal.
    r"""
CREATE OR REPLACE FUNCTION segment_search_query(search text) RETURNS tsquery
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT CAST(string_agg(
        '''' || replace(replace(substr(folded, position, 3), '\', '\\'), '''', '''''') || ''':*',
        ' & ') AS tsquery)
    FROM (SELECT casefold(search COLLATE pg_unicode_fast)) AS texts (folded),
        generate_series(1, greatest(length(folded) - 2, 1)) AS position;
END
""",
)

# Without `fastupdate`, a search does not read a list of pending entries.
INDEXES = {
    "ix_segments_search": "gin (segment_search_vector(slug, name)) WITH (fastupdate = off)",
    "ix_segments_slug_id": "btree (slug, id)",
}
REPLACED = "ix_segments_slug"


def upgrade() -> None:
    execute = op.get_bind().exec_driver_sql
    for function in FUNCTIONS:
        execute(function)
    _change_indexes(create=INDEXES, drop=[REPLACED])


def downgrade() -> None:
    _change_indexes(create={REPLACED: "btree (slug)"}, drop=list(INDEXES))
    execute = op.get_bind().exec_driver_sql
    execute("DROP FUNCTION segment_search_vector(text, text)")
    execute("DROP FUNCTION segment_search_query(text)")


def _change_indexes(*, create: dict[str, str], drop: list[str]) -> None:
    with op.get_context().autocommit_block():
        execute = op.get_bind().exec_driver_sql
        limit = execute("SHOW lock_timeout").scalar_one()
        execute("SET lock_timeout = 0")  # it waits for older transactions, and blocks none
        for name, definition in create.items():
            execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")  # of an interrupted migration
            execute(f"CREATE INDEX CONCURRENTLY {name} ON segments USING {definition}")
        for name in drop:
            execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        execute(f"SET lock_timeout = '{limit}'")  # for the next migration
