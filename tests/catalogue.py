"""The catalogue of a database before and after migrations."""

import asyncio
from typing import Any

from segmentql.adapters import migrations
from segmentql.settings import Settings
from tests.conftest import Sql

CATALOGUE = {
    "relations": """
        SELECT oid::regclass::text, relkind, relowner::regrole::text, relacl::text,
            pg_get_expr(relpartbound, oid), pg_get_partkeydef(oid)
        FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1
    """,
    "columns": """
        SELECT attrelid::regclass::text, attname, atttypid::regtype::text, attnotnull, attidentity,
            pg_get_expr(adbin, adrelid), attcollation::regcollation::text, attacl::text
        FROM pg_attribute
        JOIN pg_class ON pg_class.oid = attrelid AND relnamespace = 'public'::regnamespace
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attnum > 0 ORDER BY 1, attnum
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2
    """,
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
    "triggers": """
        SELECT pg_get_triggerdef(oid), tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1
    """,
    "functions": """
        SELECT pg_get_functiondef(oid), proowner::regrole::text, proacl::text
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1
    """,
    "types": """
        SELECT typname, typtype, typowner::regrole::text,
            array_agg(enumlabel ORDER BY enumsortorder)
        FROM pg_type LEFT JOIN pg_enum ON enumtypid = pg_type.oid
        WHERE typnamespace = 'public'::regnamespace AND typtype = 'e' GROUP BY 1, 2, 3 ORDER BY 1
    """,
    "rows": """
        SELECT 'id_allocator', user_id::text FROM id_allocator
        UNION ALL SELECT 'member_count_rollup', position::text FROM member_count_rollup
        UNION ALL SELECT 'schema_compatibility', oldest_revision FROM schema_compatibility
    """,
}


async def catalogue(sql: Sql, *, rows: bool = True) -> dict[str, list[tuple[Any, ...]]]:
    """Return the objects that all migrations created, in a comparable form.

    Args:
        sql: A connection of a superuser.
        rows: Whether to include the rows. Their tables exist only after all migrations.
    """
    return {
        kind: [tuple(row) for row in await sql.fetch(statement)]
        for kind, statement in CATALOGUE.items()
        if rows or kind != "rows"
    }


async def upgrade(settings: Settings) -> None:
    await asyncio.to_thread(migrations.upgrade, settings)


async def downgrade(settings: Settings, revision: str = "base") -> None:
    await asyncio.to_thread(migrations.downgrade, settings, revision)
