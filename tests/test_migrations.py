"""Migrations run up and down, concurrently and behind locks, and create the expected catalogue."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, pool
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from segmentql.adapters import migrations
from segmentql.adapters.database_errors import sqlstate
from segmentql.adapters.revisions import newest_revision
from segmentql.settings import Settings
from segmentql.tables import Base
from tests.conftest import Sql, environment
from tests.timeline import HOUR, add_membership, make_segment

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


async def test_downgrade_and_upgrade_restore_the_catalogue(blank: Settings, inside: Sql) -> None:
    await upgrade(blank)
    first = await catalogue(inside)
    assert {row[0] for row in first["relations"]} >= {"users", "history", "history_default"}
    await downgrade(blank)
    remaining_objects = await inside.fetch(
        """
        SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
            AND relkind IN ('r', 'p', 'S', 'v')
        UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT typname FROM pg_type
            WHERE typnamespace = 'public'::regnamespace AND typtype = 'e'
        """
    )
    assert [row[0] for row in remaining_objects] == ["alembic_version"]
    await upgrade(blank)
    assert await catalogue(inside) == first


async def test_upgrade_is_idempotent(blank: Settings, inside: Sql) -> None:
    await upgrade(blank)
    first = await catalogue(inside)
    stamped = await inside.fetch("SELECT xmin, version_num FROM alembic_version")
    await upgrade(blank)
    assert await catalogue(inside) == first
    assert await inside.fetch("SELECT xmin, version_num FROM alembic_version") == stamped


async def test_upgrade_revokes_extra_privileges(blank: Settings, inside: Sql) -> None:
    await upgrade(blank)
    first = await catalogue(inside)
    await inside.execute("GRANT INSERT, UPDATE, TRUNCATE ON history TO segmentql_service")
    await upgrade(blank)
    rights = "SELECT has_table_privilege('segmentql_service', 'history', $1)"
    assert [
        await inside.fetchval(rights, privilege)
        for privilege in ("SELECT", "INSERT", "UPDATE", "TRUNCATE")
    ] == [True, False, False, False]
    assert await catalogue(inside) == first


@pytest.mark.slow
async def test_concurrent_migrations_succeed(blank: Settings, inside: Sql) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "segmentql",
            "migrate",
            env=environment(blank),
            stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(4)
    ]
    outputs = [(await process.communicate())[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], outputs
    assert [row[0] for row in await inside.fetch("SELECT version_num FROM alembic_version")] == [
        newest_revision()
    ]


@pytest.mark.e2e  # for the 36 seconds in which the migration tries to get the lock
async def test_migration_behind_a_lock_fails_without_a_change(blank: Settings, inside: Sql) -> None:
    await upgrade(blank)
    await downgrade(blank, "0010")
    at_0010 = await catalogue(inside, rows=False)
    await upgrade(blank)
    async with inside.transaction():
        await inside.execute("SELECT FROM users")  # a long read, which a DROP would wait for
        with pytest.raises(DBAPIError) as raised:
            async with asyncio.timeout(90):
                await downgrade(blank)
        assert sqlstate(raised.value) == "55P03"
        # It is no longer in the lock queue, so later statements do not wait behind it.
        assert await inside.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") == 0
    # The migrations before it needed no such lock, and are committed.
    assert await catalogue(inside, rows=False) == at_0010
    await downgrade(blank)


async def test_existing_users_get_the_lowest_insert_seq(blank: Settings, inside: Sql) -> None:
    await asyncio.to_thread(migrations.upgrade, blank, "0001")
    await inside.execute("INSERT INTO users VALUES (8, now()), (9, now())")
    await upgrade(blank)
    await inside.execute("INSERT INTO users (id, created_at) VALUES (7, now())")
    assert [tuple(row) for row in await inside.fetch("SELECT id, insert_seq FROM users")] == [
        (8, 0),
        (9, 0),
        (7, 1),
    ]


async def test_interrupted_index_build_of_segments_is_repeated(
    blank: Settings, inside: Sql
) -> None:
    await upgrade(blank)
    first = await catalogue(inside)
    await asyncio.to_thread(migrations.downgrade, blank, "0011")
    await inside.execute("INSERT INTO segments VALUES (DEFAULT, 'A', 'b', NULL, 1, now(), now())")
    await inside.execute(
        """
        CREATE FUNCTION segment_search_vector(slug text, name text) RETURNS tsvector
            LANGUAGE sql IMMUTABLE AS $$ SELECT to_tsvector('simple', name) $$;
        CREATE INDEX ix_segments_search ON segments (id);
        UPDATE pg_index SET indisvalid = false
            WHERE indexrelid = 'ix_segments_search'::regclass;
        ALTER FUNCTION segment_search_vector(text, text) OWNER TO segmentql_owner;
        """
    )
    await upgrade(blank)
    assert await catalogue(inside) == first
    assert await inside.fetchval(
        "SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = 'segments'::regclass"
    )


async def test_joins_of_dropped_partitions_are_in_the_sums_of_member_counts(
    blank: Settings, inside: Sql
) -> None:
    await upgrade(blank)
    await downgrade(blank, "0012")
    for slug in ("A", "B"):
        segment_id = await make_segment(inside, slug)
        for user_id in (1, 2, 3):
            await add_membership(inside, user_id, segment_id, joined_ago=3 * HOUR)
    await inside.execute("DELETE FROM memberships WHERE user_id = 1 AND segment_id = 1")
    await inside.execute("SET session_replication_role = replica")
    await inside.execute("DELETE FROM history WHERE operation = 'JOINED' AND segment_id = 1")
    await inside.execute("SET session_replication_role = DEFAULT")
    await upgrade(blank)
    rows = await inside.fetch(
        "SELECT segment_id, hour::text, joins, leaves, has_seconds FROM member_count_hours"
    )
    assert [tuple(row) for row in rows] == [(1, "-infinity", 3, 0, False)]


async def test_downgrade_revokes_evaluators(blank: Settings, inside: Sql) -> None:
    """An older version has no role below READER, and the key must not become able to read."""
    await upgrade(blank)
    await inside.execute(
        """
        INSERT INTO api_keys (public_id, name, role, secret_hash, created_at)
        SELECT rpad(lower(role), 12, 'x'), role, role::key_role, sha256('x'), now()
        FROM unnest(ARRAY['EVALUATOR', 'READER']) AS role
        """
    )
    await downgrade(blank, "0016")
    rows = await inside.fetch(
        "SELECT name, role::text, revoked_at IS NOT NULL FROM api_keys ORDER BY number"
    )
    assert [tuple(row) for row in rows] == [
        ("EVALUATOR", "READER", True),
        ("READER", "READER", False),
    ]
    await upgrade(blank)


async def test_interrupted_migration_of_user_keys_continues(blank: Settings, inside: Sql) -> None:
    await asyncio.to_thread(migrations.upgrade, blank, "0010")
    expected = await catalogue(inside, rows=False)
    for interruption in (
        "SELECT",  # after the last statement
        "DROP INDEX uq_users_key",
        # An interrupted CREATE INDEX CONCURRENTLY leaves an invalid index.
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'uq_users_key'::regclass",
        "DROP INDEX ix_user_lifetimes_key; ALTER TABLE users DROP CONSTRAINT ck_users_key_form",
    ):
        await inside.execute(interruption)
        await inside.execute("UPDATE alembic_version SET version_num = '0009'")
        await asyncio.to_thread(migrations.upgrade, blank, "0010")
        assert await catalogue(inside, rows=False) == expected
        assert await inside.fetchval("SELECT bool_and(indisvalid) FROM pg_index")


async def inspected(settings: Settings, look: Callable[[Connection], Any]) -> Any:
    engine = create_async_engine(settings.owner_database_url, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        differences = await connection.run_sync(look)
    await engine.dispose()
    return differences


async def test_tables_in_python_match_the_migrations(blank: Settings) -> None:
    await upgrade(blank)

    def compare(connection: Connection) -> Any:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "compare_server_default": True,
                "include_name": lambda name, kind, _: (
                    not (kind == "table" and name.startswith(("history_", "alembic_version")))
                ),
            },
        )
        return compare_metadata(context, Base.metadata)

    assert await inspected(blank, compare) == []


async def test_checks_in_python_match_the_migrations(blank: Settings, inside: Sql) -> None:
    await upgrade(blank)
    named_in_python = {
        str(constraint.name)
        for table in Base.metadata.tables.values()
        for constraint in table.constraints
    }
    named_in_database = {
        row["conname"]
        for row in await inside.fetch(
            """
            SELECT conname FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'p', 'f', 'u')
                AND conrelid::regclass::text NOT LIKE 'history\\_%'
                AND conrelid <> 'alembic_version'::regclass
            """
        )
    }
    assert named_in_python == named_in_database


async def test_triggers_are_as_expected(blank: Settings, inside: Sql) -> None:
    await upgrade(blank)
    rows = await inside.fetch(
        """
        SELECT concat_ws(' ', tgname, 'on', tgrelid::regclass,
            CASE WHEN tgtype & 2 > 0 THEN 'before' ELSE 'after' END,
            CASE WHEN tgtype & 4 > 0 THEN 'insert' END,
            CASE WHEN tgtype & 8 > 0 THEN 'delete' END,
            CASE WHEN tgtype & 16 > 0 THEN 'update' END,
            CASE WHEN tgtype & 32 > 0 THEN 'truncate' END,
            CASE WHEN tgtype & 1 > 0 THEN 'row' ELSE 'statement' END,
            tgoldtable, tgnewtable, tgfoid::regproc, tgenabled)
        FROM pg_trigger
        WHERE NOT tgisinternal AND tgrelid::regclass::text !~ '^history_[0-9]'
        """
    )
    refuse, record = "before truncate statement refuse_truncate O", "record_memberships O"
    log = "record_exclusions O"
    logs = ("audit_log", "exclusion_log", "user_lifetimes", "rollout_events", "rollout_passes")
    assert {row[0] for row in rows} == {
        *(f"{table}_refuse_truncate on {table} {refuse}" for table in logs),
        f"history_refuse_truncate on history {refuse}",
        f"history_default_refuse_truncate on history_default {refuse}",
        f"memberships_refuse_truncate on memberships {refuse}",
        f"memberships_record_insert on memberships after insert statement new_rows {record}",
        f"memberships_record_delete on memberships after delete statement old_rows {record}",
        "memberships_record_update on memberships after update statement old_rows new_rows "
        + record,
        "history_report_counts on history after insert statement new_rows report_history_counts O",
        "users_enroll on users after insert statement new_rows enroll_new_users O",
        "users_record_delete on users after delete statement old_rows record_user_lifetimes O",
        f"exclusions_record_insert on exclusions after insert row {log}",
        f"exclusions_record_delete on exclusions after delete row {log}",
    }


async def test_history_partitions_reject_truncate_and_exist_ahead(
    blank: Settings, inside: Sql
) -> None:
    await upgrade(blank)
    months = await inside.fetch(
        """
        SELECT inhrelid::regclass::text AS name, (
            SELECT array_agg(tgfoid::regproc::text) FROM pg_trigger
            WHERE tgrelid = inhrelid AND NOT tgisinternal) AS triggers
        FROM pg_inherits WHERE inhparent = 'history'::regclass ORDER BY 1
        """
    )
    assert {tuple(row["triggers"]) for row in months} == {("refuse_truncate",)}
    months_ahead = await inside.fetch(
        """
        SELECT to_char(month, '"history_"YYYY_MM') FROM generate_series(
            date_trunc('month', (now() AT TIME ZONE 'UTC')),
            date_trunc('month', (now() AT TIME ZONE 'UTC')) + interval '2 months', '1 month'
        ) AS month
        """
    )
    assert {row[0] for row in months_ahead} < {row["name"] for row in months}


async def test_functions_are_as_expected(blank: Settings, inside: Sql) -> None:
    await upgrade(blank)
    rows = await inside.fetch(
        """
        SELECT oid::regprocedure::text, prosecdef, proconfig, proowner::regrole::text,
            has_function_privilege('segmentql_service', oid, 'EXECUTE'),
            coalesce((SELECT bool_or(grantee = 0) FROM aclexplode(proacl)), true)
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1
        """
    )
    public = ["search_path=pg_catalog, public, pg_temp"]
    owner = "segmentql_owner"
    # The columns: name, security definer, settings, owner, executable by the service, and by
    # PUBLIC.
    assert [tuple(row) for row in rows] == [
        ("check_history_is_complete(timestamp with time zone)", False, public, owner, False, False),
        ("drop_history_month(date)", True, public, owner, True, False),
        ("enroll_new_users()", True, public, owner, False, False),
        ("make_history_partitions(date,integer)", True, public, owner, True, False),
        ("next_id_for_key()", False, public, owner, True, True),
        ("prune_history(timestamp with time zone)", True, public, owner, True, False),
        ("record_exclusions()", True, public, owner, False, False),
        ("record_memberships()", True, public, owner, False, False),
        ("record_user_lifetimes()", True, public, owner, False, False),
        ("refuse_truncate()", False, ["search_path=pg_catalog, pg_temp"], owner, True, True),
        ("report_history_counts()", False, public, owner, True, True),
        # They read with the owner's rights: by the trigger, and by the service on its own tables.
        ("rollout_hash_v1(bigint,bigint)", False, None, owner, True, True),
        ("rollouts_enrolling(timestamp with time zone)", False, None, owner, True, True),
        ("segment_search_query(text)", False, None, owner, True, True),
        ("segment_search_vector(text,text)", False, None, owner, True, True),
    ]
