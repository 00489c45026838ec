"""The migrations create the tables, checks, triggers, partitions and functions that we expect."""

from collections.abc import Callable
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, pool
from sqlalchemy.ext.asyncio import create_async_engine

from segmentql.settings import Settings
from segmentql.tables import Base
from tests.catalogue import upgrade
from tests.conftest import Sql


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
