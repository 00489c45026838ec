"""Migrations run up and down, concurrently, behind locks and after interruptions."""

import asyncio
import sys

import pytest
from sqlalchemy.exc import DBAPIError

from segmentql.adapters import migrations
from segmentql.adapters.database_errors import sqlstate
from segmentql.adapters.revisions import newest_revision
from segmentql.settings import Settings
from tests.catalogue import catalogue, downgrade, upgrade
from tests.conftest import Sql, environment
from tests.timeline import HOUR, add_membership, make_segment


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
